// read(2), write(2), pread64(2), pwrite64(2) and their vectored forms.
//
// At the home there is one buffer and six calls; iovecs are gathered and scattered where guest
// memory is. A transfer longer than kMaxRound goes in rounds: a write until everything is written,
// a read only where Linux would fill the whole buffer too (regular files, block devices,
// /dev/zero), never for pipes, sockets and terminals. Between two rounds another thread's transfer
// on the same descriptor may come in, where Linux would keep a regular file's transfer in one
// piece.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/segments.h"
#include "dom0-daemon/hypervisor/usermode/io/shapes.h"
#include "dom0-daemon/hypervisor/usermode/io/socket_calls.h"
#include "dom0-daemon/hypervisor/usermode/io/system_call.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

// Where each value of a request is, in RequestHeader::args.
enum { kDescriptorArg, kBytesArg, kOffsetArg, kFlagsArg };

// The guest's call, whichever it was, as one of the six that the home runs.
struct Transfer {
  std::int64_t number = 0;
  Segments segments;
  std::int64_t offset = 0;
  std::uint64_t flags = 0;  // RWF_*
  bool positioned = false;

  std::uint64_t round(std::uint64_t done) const {
    return std::min<std::uint64_t>(segments.total() - std::min(done, segments.total()), kMaxRound);
  }
};

int parse(const Call& call, GuestMemory& memory, Transfer& transfer) {
  const auto& args = call.args;
  transfer.offset = static_cast<std::int64_t>(args[3]);
  switch (call.number) {
    case SYS_read:
    case SYS_write:
      transfer.number = call.number;
      return Segments::one(args[1], args[2], transfer.segments);
    case SYS_pread64:
    case SYS_pwrite64:
      transfer.number = call.number;
      transfer.positioned = true;
      return Segments::one(args[1], args[2], transfer.segments);
    case SYS_readv: transfer.number = SYS_read; break;
    case SYS_writev: transfer.number = SYS_write; break;
    case SYS_preadv: transfer.number = SYS_pread64; break;
    case SYS_pwritev: transfer.number = SYS_pwrite64; break;
    default:
      transfer.number = call.number;
      transfer.flags = args[5];
      break;
  }
  const bool versioned = call.number == SYS_preadv2 || call.number == SYS_pwritev2;
  transfer.positioned = call.number == SYS_preadv || call.number == SYS_pwritev ||
                        (versioned && transfer.offset != -1);
  return Segments::vector(memory, args[1], args[2], transfer.segments);
}

int pack_round(const Call& call, const Transfer& transfer, std::uint64_t done, GuestMemory& memory,
               Packet& request) {
  const std::uint64_t round = transfer.round(done);
  RequestHeader header;
  header.number = static_cast<std::uint16_t>(transfer.number);
  if (transfer.segments.total() - done > round) header.flags |= kMore;
  header.args[kDescriptorArg] = call.args[0];
  header.args[kBytesArg] = round;
  header.args[kOffsetArg] =
      static_cast<std::uint64_t>(transfer.offset) + (transfer.positioned ? done : 0);
  header.args[kFlagsArg] = transfer.flags;
  if (!is_sending(call.number)) {
    start_request(request, header);
    return 0;
  }
  size_roughly(request, sizeof header + round);
  const std::size_t readable =
      transfer.segments.gather(memory, done, request.data() + sizeof header, round);
  if (readable == 0 && round != 0) return -EFAULT;
  header.args[kBytesArg] = readable;  // less: Linux also writes what it can read
  request.resize(sizeof header + readable);
  std::memcpy(request.data(), &header, sizeof header);
  return 0;
}

// Whether a read that has filled its round should be followed by another.
bool reads_on(std::int32_t descriptor) {
  struct stat status;
  if (call(SYS_fstat, descriptor, &status) < 0) return false;
  if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) return true;
  char attributes[64];  // the kernel's struct termios
  return S_ISCHR(status.st_mode) && call(SYS_ioctl, descriptor, TCGETS, attributes) < 0;
}

std::int64_t run(const RequestHeader& header, std::uint8_t* data) {
  const auto& args = header.args;
  const iovec one{data, args[kBytesArg]};
  switch (header.number) {
    case SYS_read:
    case SYS_write: return call(header.number, args[kDescriptorArg], data, args[kBytesArg]);
    case SYS_pread64:
    case SYS_pwrite64:
      return call(header.number, args[kDescriptorArg], data, args[kBytesArg], args[kOffsetArg]);
    case SYS_preadv2:
    case SYS_pwritev2:
      return call(header.number, args[kDescriptorArg], &one, 1, args[kOffsetArg], 0,
                  args[kFlagsArg]);
    default: return -EINVAL;
  }
}

void execute_write(const RequestHeader& header, const Packet& request, Packet& answer) {
  const auto descriptor = static_cast<std::int32_t>(header.args[kDescriptorArg]);
  const bool more = (header.flags & kMore) != 0;
  if (more && is_message_socket(descriptor)) return answer_only(answer, -EMSGSIZE);
  // The kernel only reads from it.
  auto* data = const_cast<std::uint8_t*>(request.data()) + sizeof header;
  AnswerHeader result;
  result.result = run(header, data);
  if (more && result.result == static_cast<std::int64_t>(header.args[kBytesArg]))
    result.flags = kMayContinue;
  size_roughly(answer, sizeof result);
  std::memcpy(answer.data(), &result, sizeof result);
}

void execute_read(const RequestHeader& header, Packet& answer) {
  AnswerHeader result;
  size_roughly(answer, sizeof result + header.args[kBytesArg]);
  result.result = run(header, answer.data() + sizeof result);
  const std::size_t got = result.result > 0 ? static_cast<std::size_t>(result.result) : 0;
  if ((header.flags & kMore) != 0 && got == header.args[kBytesArg] &&
      reads_on(static_cast<std::int32_t>(header.args[kDescriptorArg])))
    result.flags = kMayContinue;
  answer.resize(sizeof result + got);
  std::memcpy(answer.data(), &result, sizeof result);
}

}  // namespace

bool is_sending(std::int64_t number) {
  switch (number) {
    case SYS_write:
    case SYS_pwrite64:
    case SYS_writev:
    case SYS_pwritev:
    case SYS_pwritev2:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg: return true;
    default: return false;
  }
}

int pack_transfer(const Call& call, const Progress& progress, GuestMemory& memory,
                  Packet& request) {
  Transfer transfer;
  int error = parse(call, memory, transfer);
  if (error == 0) error = pack_round(call, transfer, progress.done, memory, request);
  return error;
}

void execute_transfer(const HomeIo& home, const RequestHeader& header, const Packet& request,
                      Packet& answer) {
  const std::uint64_t bytes = header.args[kBytesArg];
  const bool sending = is_sending(header.number);
  if (bytes > kMaxRound || request.size() != sizeof header + (sending ? bytes : 0))
    return answer_only(answer, -EINVAL);
  if (is_hidden(home, static_cast<std::int64_t>(header.args[kDescriptorArg])))
    return answer_only(answer, -EBADF);
  if (sending)
    execute_write(header, request, answer);
  else
    execute_read(header, answer);
}

Next unpack_transfer(const Call& call, const Packet& answer, GuestMemory& memory,
                     Progress& progress) {
  AnswerHeader header;
  std::memcpy(&header, answer.data(), sizeof header);
  const auto finished = [&](std::int64_t error) {
    progress.result = progress.done > 0 ? static_cast<std::int64_t>(progress.done) : error;
    return Next::kFinished;
  };
  if (header.result <= 0) return finished(header.result);
  Transfer transfer;
  if (const int error = parse(call, memory, transfer); error != 0) return finished(error);
  const std::uint64_t round = transfer.round(progress.done);
  const auto moved = static_cast<std::uint64_t>(header.result);
  if (moved > round) return finished(-EIO);
  if (!is_sending(call.number)) {
    if (answer.size() - sizeof header < moved) return finished(-EIO);
    const std::size_t written =
        transfer.segments.scatter(memory, progress.done, answer.data() + sizeof header, moved);
    progress.done += written;
    if (written < moved) return finished(-EFAULT);
  } else {
    progress.done += moved;
  }
  progress.result = static_cast<std::int64_t>(progress.done);
  const bool again = moved == round && (header.flags & kMayContinue) != 0 &&
                     progress.done < transfer.segments.total();
  return again ? Next::kAgain : Next::kFinished;
}

}  // namespace xenspan::hypervisor::usermode::io
