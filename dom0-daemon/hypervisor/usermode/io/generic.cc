// Calls whose table entry says everything: arguments are marshalled by their descriptions.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/paths.h"
#include "dom0-daemon/hypervisor/usermode/io/shapes.h"
#include "dom0-daemon/hypervisor/usermode/io/system_call.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

constexpr std::size_t kPathMax = 4096;  // Linux's PATH_MAX, the NUL included
constexpr std::uint32_t kSmall = 4096;  // areas up to here are cleared before the kernel fills them

bool is_text(const Arg& arg) { return arg.kind == Kind::kText || arg.kind == Kind::kPath; }
bool is_out(const Arg& arg) { return arg.kind == Kind::kBuffer && arg.out; }
bool is_in(const Arg& arg) { return arg.kind == Kind::kBuffer && arg.in; }

void append_record(Packet& packet, unsigned arg, std::uint32_t bytes) {
  const Record record{arg, bytes};
  std::memcpy(append(packet, sizeof record), &record, sizeof record);
}

// Why read_string() failed: too long, or bad memory before a NUL.
int text_error(GuestMemory& memory, std::uint64_t address) {
  std::uint8_t piece[512];
  for (std::size_t at = 0; at < kPathMax; at += sizeof piece)
    if (!memory.read(piece, address + at, sizeof piece)) return -EFAULT;
  return -ENAMETOOLONG;
}

int pack_text(unsigned i, std::uint64_t address, GuestMemory& memory, Packet& request) {
  std::string string;
  if (!memory.read_string(string, address, kPathMax - 1)) return text_error(memory, address);
  append_record(request, i, static_cast<std::uint32_t>(string.size() + 1));
  std::memcpy(append(request, string.size() + 1), string.data(), string.size());
  return 0;
}

// The length of buffer `i` in bytes, from the values of the other arguments; -errno. Cuts
// args[other] to the limit where Linux would simply return less. kPointed buffers have no length
// here.
std::int64_t length_of(const Arg& arg, std::array<std::uint64_t, 6>& args) {
  switch (arg.length) {
    case Length::kFixed: return arg.unit;
    case Length::kPointed: return 0;
    case Length::kFdSet: {
      const auto count = static_cast<std::int32_t>(args[0]);
      if (count > kMaxFdSet) args[0] = kMaxFdSet;
      return static_cast<std::int64_t>(fd_set_bytes(std::min(count, kMaxFdSet)));
    }
    case Length::kCounted: break;
  }
  std::uint64_t& count = args[arg.other];
  if (arg.int_count) {
    if (static_cast<std::int32_t>(count) < 0) return -EINVAL;
    count = static_cast<std::uint32_t>(count);
  }
  const std::uint64_t most = arg.limit / arg.unit;
  if (count > most) {
    if (arg.over != 0) return -static_cast<std::int64_t>(arg.over);
    count = most;
  }
  return static_cast<std::int64_t>(count * arg.unit);
}

int pack_buffer(const Arg& arg, unsigned i, std::array<std::uint64_t, 6>& args, GuestMemory& memory,
                Packet& request) {
  if (args[i] == 0) return 0;  // the kernel says what a null pointer means
  const std::int64_t bytes = length_of(arg, args);
  if (bytes < 0) return static_cast<int>(bytes);
  if (!arg.in) return 0;
  append_record(request, i, static_cast<std::uint32_t>(bytes));
  std::uint8_t* to = append(request, static_cast<std::size_t>(bytes));
  return memory.read(to, args[i], static_cast<std::size_t>(bytes)) ? 0 : -EFAULT;
}

// Takes the request's items apart: every text and every read buffer that is not null, in order,
// nothing else.
int find_items(const Packet& request, Invocation& invocation) {
  Items items(request, sizeof(RequestHeader));
  for (unsigned i = 0; i < 6; ++i) {
    const Arg& arg = invocation.info.args[i];
    if (invocation.args[i] == 0 || (!is_text(arg) && !is_in(arg))) continue;
    Record record;
    if (!items.take_value(record) || record.arg != i) return -EINVAL;
    const std::uint8_t* bytes = items.take(record.bytes);
    if (bytes == nullptr) return -EINVAL;
    invocation.items[i].sent = bytes;
    invocation.items[i].bytes = record.bytes;
    if (!is_text(arg)) continue;
    if (record.bytes == 0 || record.bytes > kPathMax) return -EINVAL;
    if (std::memchr(bytes, 0, record.bytes) != bytes + record.bytes - 1) return -EINVAL;
  }
  return items.empty() ? 0 : -EINVAL;
}

// Lengths as pack_buffer() computed them; decides how much room each written buffer gets in the
// answer.
int measure(Invocation& invocation, std::size_t& total) {
  total = sizeof(AnswerHeader);
  for (unsigned i = 0; i < 6; ++i) {
    const Arg& arg = invocation.info.args[i];
    if (arg.kind != Kind::kBuffer || invocation.args[i] == 0) continue;
    Invocation::Item& item = invocation.items[i];
    const std::uint64_t count_before = invocation.args[arg.other];
    std::int64_t bytes = length_of(arg, invocation.args);
    if (bytes < 0) return static_cast<int>(bytes);
    if (arg.length == Length::kCounted &&
        static_cast<std::uint32_t>(count_before) != invocation.args[arg.other])
      return -EINVAL;  // pack() cuts lengths, so a longer one is nonsense
    if (arg.in && item.bytes != static_cast<std::uint64_t>(bytes)) return -EINVAL;
    if (arg.length == Length::kPointed) {
      const Invocation::Item& pointed = invocation.items[arg.other];
      std::int32_t length = 0;
      if (pointed.sent != nullptr) std::memcpy(&length, pointed.sent, sizeof length);
      if (length < 0) return -EINVAL;
      bytes = std::min<std::int64_t>(length, arg.limit);
    }
    if (!arg.out) continue;
    item.offset = static_cast<std::uint32_t>(total + sizeof(Record));
    item.room = static_cast<std::uint32_t>(bytes);
    total = item.offset + padded(item.room);
    if (total > kMaxRound + kMaxExtra) return -EINVAL;
  }
  return 0;
}

// Fills in the pointers the kernel gets. `answer` has its full length already.
void point(Invocation& invocation, Packet& answer) {
  for (unsigned i = 0; i < 6; ++i) {
    const Arg& arg = invocation.info.args[i];
    const Invocation::Item& item = invocation.items[i];
    if (arg.kind == Kind::kNull) invocation.args[i] = 0;
    if (invocation.args[i] == 0) continue;
    if (is_out(arg)) {
      std::uint8_t* area = answer.data() + item.offset;
      if (arg.in)
        std::memcpy(area, item.sent, item.room);
      else if (!arg.by_result || item.room <= kSmall)
        std::memset(area, 0, item.room);
      invocation.args[i] = word(area);
    } else if (is_text(arg) || is_in(arg)) {
      invocation.args[i] = word(item.sent);
    }
  }
  for (unsigned i = 0; i < 6; ++i) {  // a pointed length may promise more room than there is
    const Arg& arg = invocation.info.args[i];
    if (arg.kind != Kind::kBuffer || arg.length != Length::kPointed ||
        invocation.args[arg.other] == 0)
      continue;
    if (invocation.args[i] == 0) continue;
    *invocation.pointer<std::uint32_t>(arg.other) = invocation.items[i].room;
  }
}

std::uint32_t used_bytes(const Invocation& invocation, unsigned i, std::int64_t result) {
  const Arg& arg = invocation.info.args[i];
  const Invocation::Item& item = invocation.items[i];
  if (result < 0) return arg.always ? item.room : 0;
  if (arg.by_result)
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(item.room, static_cast<std::uint64_t>(result) * arg.unit));
  if (arg.length == Length::kPointed && invocation.args[arg.other] != 0) {
    std::uint32_t length;
    std::memcpy(&length, invocation.pointer<void>(arg.other), sizeof length);
    return std::min(item.room, length);
  }
  return item.room;
}

// Moves what the call has filled to the front of the answer, so that nothing else travels.
void collect(const Invocation& invocation, std::int64_t result, Packet& answer) {
  std::array<std::uint32_t, 6> used{};
  for (unsigned i = 0; i < 6; ++i)
    if (is_out(invocation.info.args[i]) && invocation.args[i] != 0)
      used[i] = used_bytes(invocation, i, result);
  std::size_t end = sizeof(AnswerHeader);
  for (unsigned i = 0; i < 6; ++i) {
    if (used[i] == 0) continue;
    const Record record{i, used[i]};
    std::uint8_t* to = answer.data() + end + sizeof record;
    std::memmove(to, answer.data() + invocation.items[i].offset, used[i]);
    std::memcpy(answer.data() + end, &record, sizeof record);
    std::memset(to + used[i], 0, padded(used[i]) - used[i]);
    end += sizeof record + padded(used[i]);
  }
  answer.resize(end);
  const AnswerHeader header{result, 0, 0};
  std::memcpy(answer.data(), &header, sizeof header);
}

bool names_path(const CallInfo& info) {
  return std::any_of(std::begin(info.args), std::end(info.args),
                     [](const Arg& arg) { return arg.kind == Kind::kPath; });
}

// Whether the guest's own call lets the home write `bytes` bytes to argument `i`.
bool may_write(const Arg& arg, unsigned i, const Call& call, std::uint32_t bytes,
               GuestMemory& memory) {
  if (!is_out(arg) || call.args[i] == 0) return false;
  if (arg.length == Length::kPointed) {
    std::uint32_t length = 0;
    return memory.read(&length, call.args[arg.other], sizeof length) && bytes <= length;
  }
  std::array<std::uint64_t, 6> args = call.args;
  const std::int64_t most = length_of(arg, args);
  return most >= 0 && bytes <= static_cast<std::uint64_t>(most);
}

}  // namespace

std::int64_t run_plain(const HomeIo&, Invocation& invocation) {
  return system_call(invocation.number, invocation.args);
}

int pack_generic(const CallInfo& info, const Call& call, GuestMemory& memory, Packet& request) {
  RequestHeader header;
  header.number = static_cast<std::uint16_t>(call.number);
  header.args = call.args;
  start_request(request, header);
  for (unsigned i = 0; i < 6; ++i) {
    const Arg& arg = info.args[i];
    int error = 0;
    if (arg.kind == Kind::kNull) header.args[i] = 0;
    if (is_text(arg) && header.args[i] != 0) error = pack_text(i, header.args[i], memory, request);
    if (arg.kind == Kind::kBuffer) error = pack_buffer(arg, i, header.args, memory, request);
    if (error != 0) return error;
  }
  std::memcpy(request.data(), &header, sizeof header);  // lengths may have been cut
  return 0;
}

namespace {

// The guest's own process, by its number, is this one, by whatever number.
void name_process(const HomeIo& home, Invocation& invocation) {
  unsigned arg = 0;
  switch (invocation.number) {
    case SYS_getpgid:
    case SYS_setpgid:
    case SYS_getsid:
    case SYS_prlimit64: break;
    case SYS_getpriority:
    case SYS_setpriority:
      if (invocation.int_arg(0) != PRIO_PROCESS) return;
      arg = 1;
      break;
    default: return;
  }
  if (home.pid != 0 && invocation.int_arg(arg) == home.pid)
    invocation.args[arg] = static_cast<std::uint64_t>(::getpid());
}

}  // namespace

void execute_generic(const HomeIo& home, const CallInfo& info, const RequestHeader& header,
                     const Packet& request, Packet& answer) {
  Invocation invocation{info, header.number, header.args, {}};
  std::size_t total = 0;
  int error = find_items(request, invocation);
  if (error == 0) error = measure(invocation, total);
  if (error == 0) error = check_descriptors(home, invocation);
  if (error != 0) return answer_only(answer, error);
  name_process(home, invocation);
  size_roughly(answer, total);
  point(invocation, answer);
  std::int64_t result;
  if (info.run != nullptr)
    result = info.run(home, invocation);
  else
    result = names_path(info) ? run_path(home, invocation) : run_plain(home, invocation);
  if (info.new_fd) result = keep_below_limit(home, result);
  collect(invocation, result, answer);
}

void unpack_generic(const CallInfo& info, const Call& call, const Packet& answer,
                    GuestMemory& memory, Progress& progress) {
  AnswerHeader header;
  std::memcpy(&header, answer.data(), sizeof header);
  progress.result = header.result;
  Items items(answer, sizeof header);
  while (!items.empty()) {
    Record record;
    const std::uint8_t* bytes = items.take_value(record) ? items.take(record.bytes) : nullptr;
    if (bytes == nullptr || record.arg >= 6) {
      progress.result = -EIO;
      return;
    }
    const Arg& arg = info.args[record.arg];
    const bool written = may_write(arg, record.arg, call, record.bytes, memory) &&
                         memory.write(call.args[record.arg], bytes, record.bytes);
    if (!written && !arg.always) progress.result = -EFAULT;
  }
}

}  // namespace xenspan::hypervisor::usermode::io
