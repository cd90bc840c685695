// sendto(2), recvfrom(2), sendmsg(2), recvmsg(2) and, several at once, sendmmsg(2), recvmmsg(2).
//
// All travel in one form, a list of messages (one, but for the last two), and the home runs
// sendmsg(2) or recvmsg(2) for each. A long send on a stream goes in rounds, and so does a long
// receive with MSG_WAITALL. sendmmsg and recvmmsg take as many messages as fit into one round and
// return that number, as they may.
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/segments.h"
#include "dom0-daemon/hypervisor/usermode/io/shapes.h"
#include "dom0-daemon/hypervisor/usermode/io/socket_calls.h"
#include "dom0-daemon/hypervisor/usermode/io/system_call.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

enum { kDescriptorArg, kFlagsArg, kCountArg, kTimeArg };

constexpr std::int64_t kSecond = 1'000'000'000;  // ns

bool is_list(std::int64_t number) { return number == SYS_sendmmsg || number == SYS_recvmmsg; }

// One message of the guest's call.
struct GuestMessage {
  Segments payload;
  std::uint64_t name = 0, control = 0;  // addresses, 0: none
  std::uint32_t name_bytes = 0, control_bytes = 0;
  std::uint64_t name_length = 0;  // where the name's length is to be written, 0: nowhere
  std::uint64_t header = 0;       // address of its msghdr, 0: it has none
};

std::uint32_t flags_of(const Call& call) {
  const bool single = call.number == SYS_sendmsg || call.number == SYS_recvmsg;
  return static_cast<std::uint32_t>(call.args[single ? 2 : 3]);
}

std::uint64_t count_of(const Call& call) {
  return is_list(call.number)
             ? std::min<std::uint64_t>(static_cast<std::uint32_t>(call.args[2]), kMaxIovecs)
             : 1;
}

int parse_plain(const Call& call, GuestMemory& memory, GuestMessage& message) {
  message.name = call.args[4];
  if (message.name != 0) {
    auto length = static_cast<std::int32_t>(call.args[5]);
    if (call.number == SYS_recvfrom) {
      message.name_length = call.args[5];
      if (!memory.read(&length, message.name_length, sizeof length)) return -EFAULT;
    }
    if (length < 0 || (call.number == SYS_sendto && length > static_cast<int>(kMaxName)))
      return -EINVAL;
    message.name_bytes = std::min(static_cast<std::uint32_t>(length), kMaxName);
  }
  return Segments::one(call.args[1], call.args[2], message.payload);
}

int parse_header(const Call& call, std::uint64_t index, GuestMemory& memory,
                 GuestMessage& message) {
  message.header = call.args[1] + index * sizeof(mmsghdr);
  msghdr header;
  if (!memory.read(&header, message.header, sizeof header)) return -EFAULT;
  if (static_cast<std::int32_t>(header.msg_namelen) < 0) return -EINVAL;
  if (header.msg_iovlen > kMaxIovecs) return -EMSGSIZE;
  message.name = word(header.msg_name);
  if (message.name != 0) {
    message.name_bytes = std::min(header.msg_namelen, kMaxName);
    message.name_length = message.header + offsetof(msghdr, msg_namelen);
  }
  message.control = word(header.msg_control);
  if (message.control != 0) {
    if (header.msg_controllen > kMaxControl && is_sending(call.number)) return -ENOBUFS;
    message.control_bytes =
        static_cast<std::uint32_t>(std::min<std::size_t>(header.msg_controllen, kMaxControl));
  }
  return Segments::vector(memory, word(header.msg_iov), header.msg_iovlen, message.payload);
}

int parse(const Call& call, std::uint64_t index, GuestMemory& memory, GuestMessage& message) {
  if (call.number == SYS_sendto || call.number == SYS_recvfrom)
    return parse_plain(call, memory, message);
  return parse_header(call, index, memory, message);
}

std::uint32_t round_of(const GuestMessage& message, std::uint64_t done) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(message.payload.total() - done, kMaxRound));
}

// What one message adds to a packet.
std::size_t packed_bytes(const MessageHead& head) {
  return sizeof head + padded(head.name) + padded(head.control) + padded(head.payload);
}

int append_message(const GuestMessage& message, const MessageHead& head, std::uint64_t done,
                   bool sending, GuestMemory& memory, Packet& request) {
  std::memcpy(append(request, sizeof head), &head, sizeof head);
  if (!sending) return 0;
  std::uint8_t* name = append(request, head.name);
  if (head.name != 0 && !memory.read(name, message.name, head.name)) return -EFAULT;
  std::uint8_t* control = append(request, head.control);
  if (head.control != 0 && !memory.read(control, message.control, head.control)) return -EFAULT;
  std::uint8_t* payload = append(request, head.payload);
  return message.payload.gather(memory, done, payload, head.payload) == head.payload ? 0 : -EFAULT;
}

// Appends message `index`. 0; -errno; or 1 when it no longer fits into this round.
int pack_one(const Call& call, std::uint64_t index, std::uint64_t done, GuestMemory& memory,
             RequestHeader& header, Packet& request) {
  GuestMessage message;
  if (const int error = parse(call, index, memory, message); error != 0) return error;
  if (done > message.payload.total()) return -EINVAL;
  const bool sending = is_sending(call.number);
  MessageHead head;
  head.payload = round_of(message, done);
  if (message.payload.total() - done > head.payload) {
    if (is_list(call.number) && sending) return -EMSGSIZE;
    header.flags |= kMore;
  }
  if (done == 0 || !sending) {  // address and control data go with the first round
    head.name = message.name_bytes;
    head.control = message.control_bytes;
  }
  if (index > 0 && request.size() + packed_bytes(head) > kMaxRound) return 1;
  return append_message(message, head, done, sending, memory, request);
}

// recvmmsg(2)'s time limit in ns, -1: none.
int read_time_limit(const Call& call, GuestMemory& memory, std::uint64_t& limit) {
  limit = static_cast<std::uint64_t>(-1);
  if (call.number != SYS_recvmmsg || call.args[4] == 0) return 0;
  timespec time;
  if (!memory.read(&time, call.args[4], sizeof time)) return -EFAULT;
  if (time.tv_sec < 0 || time.tv_nsec < 0 || time.tv_nsec >= kSecond) return -EINVAL;
  limit = static_cast<std::uint64_t>(std::min<std::int64_t>(time.tv_sec, INT32_MAX) * kSecond +
                                     time.tv_nsec);
  return 0;
}

int pack_all(const Call& call, std::uint64_t done, GuestMemory& memory, RequestHeader& header,
             Packet& request) {
  std::uint64_t room = 0;  // receiving: what the answer will need
  const std::uint64_t count = count_of(call);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::size_t before = request.size();
    int error = pack_one(call, i, done, memory, header, request);
    if (error == 0 && !is_sending(call.number)) {
      MessageHead head;
      std::memcpy(&head, request.data() + before, sizeof head);
      room += packed_bytes(head);
      if (i > 0 && room > kMaxRound) error = 1;
    }
    if (error == 0) {
      ++header.args[kCountArg];
      continue;
    }
    if (i == 0) return error;
    request.resize(before);  // Linux too sends the good ones and reports the bad one next time
    break;
  }
  return 0;
}

// What a peer's message head may say.
bool is_sane(const MessageHead& head) {
  return head.name <= kMaxName && head.control <= kMaxControl && head.payload <= kMaxRound;
}

std::int64_t send_next(const HomeIo& home, const RequestHeader& header, Items& items,
                       MessageHead& head) {
  if (!items.take_value(head) || !is_sane(head)) return -EINVAL;
  const std::uint8_t* name = items.take(head.name);
  const std::uint8_t* control = items.take(head.control);
  const std::uint8_t* payload = items.take(head.payload);
  if (name == nullptr || control == nullptr || payload == nullptr) return -EINVAL;
  const auto descriptor = static_cast<std::int32_t>(header.args[kDescriptorArg]);
  if ((header.flags & kMore) != 0 && is_message_socket(descriptor)) return -EMSGSIZE;
  const auto writable = [](const std::uint8_t* bytes) { return const_cast<std::uint8_t*>(bytes); };
  head.result = send_one(home, descriptor, static_cast<std::uint32_t>(header.args[kFlagsArg]), head,
                         {writable(name), writable(control), writable(payload)});
  return head.result;
}

void execute_sends(const HomeIo& home, const RequestHeader& header, const Packet& request,
                   Packet& answer) {
  Items items(request, sizeof header);
  AnswerHeader result;
  answer.clear();
  append(answer, sizeof result);
  for (std::uint64_t i = 0; i < header.args[kCountArg]; ++i) {
    MessageHead head;
    const std::int64_t sent = send_next(home, header, items, head);
    if (sent < 0) {
      if (i == 0) result.result = sent;
      break;
    }
    std::memcpy(append(answer, sizeof head), &head, sizeof head);
    result.result = is_list(header.number) ? static_cast<std::int64_t>(i + 1) : sent;
    if ((header.flags & kMore) != 0 && sent == head.payload) result.flags = kMayContinue;
  }
  std::memcpy(answer.data(), &result, sizeof result);
}

// Receives into the answer at `at`, where there is room for what `head` says. Items: head, payload,
// name, control; each as long as used. Moves `at` past them.
std::int64_t receive_next(const HomeIo& home, const RequestHeader& header, std::uint32_t flags,
                          MessageHead& head, Packet& answer, std::size_t& at) {
  const MessageHead room = head;
  std::uint8_t* payload = answer.data() + at + sizeof head;
  std::uint8_t* name = payload + padded(room.payload);
  std::uint8_t* control = name + padded(room.name);
  std::memset(name, 0, padded(room.name) + padded(room.control));
  const std::int64_t got = receive_one(home, static_cast<std::int32_t>(header.args[kDescriptorArg]),
                                       flags, head, {name, control, payload});
  if (got < 0) return got;
  const std::uint32_t name_bytes = std::min(head.name, room.name);
  std::uint8_t* end = payload + padded(head.payload);
  std::memset(payload + head.payload, 0, padded(head.payload) - head.payload);
  std::memmove(end, name, padded(name_bytes));
  std::memmove(end + padded(name_bytes), control, padded(head.control));
  std::memcpy(answer.data() + at, &head, sizeof head);
  at += sizeof head + padded(head.payload) + padded(name_bytes) + padded(head.control);
  return got;
}

std::int64_t now_ns() {
  timespec now{};
  call(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * kSecond + now.tv_nsec;
}

// Adds up the room the messages ask for. false: nonsense.
bool measure(const RequestHeader& header, const Packet& request, std::size_t& total) {
  Items items(request, sizeof header);
  total = sizeof(AnswerHeader);
  for (std::uint64_t i = 0; i < header.args[kCountArg]; ++i) {
    MessageHead head;
    if (!items.take_value(head) || !is_sane(head)) return false;
    total += packed_bytes(head);
    if (total > kMaxRound + kMaxExtra) return false;
  }
  return items.empty();
}

void execute_receives(const HomeIo& home, const RequestHeader& header, const Packet& request,
                      Packet& answer) {
  std::size_t total = 0;
  if (!measure(header, request, total)) return answer_only(answer, -EINVAL);
  size_roughly(answer, total);
  Items items(request, sizeof header);
  AnswerHeader result;
  std::size_t at = sizeof result;
  auto flags = static_cast<std::uint32_t>(header.args[kFlagsArg]);
  const auto limit = static_cast<std::int64_t>(header.args[kTimeArg]);
  const std::int64_t start = limit >= 0 ? now_ns() : 0;
  for (std::uint64_t i = 0; i < header.args[kCountArg]; ++i) {
    MessageHead head;
    items.take_value(head);
    const std::uint32_t room = head.payload;
    const std::int64_t got =
        receive_next(home, header, flags & ~std::uint32_t{MSG_WAITFORONE}, head, answer, at);
    if (got < 0) {
      if (i == 0) result.result = got;
      break;
    }
    result.result = is_list(header.number) ? static_cast<std::int64_t>(i + 1) : got;
    const bool whole = (flags & MSG_WAITALL) != 0 && (flags & MSG_PEEK) == 0 && got == room;
    if ((header.flags & kMore) != 0 && whole) result.flags = kMayContinue;
    if ((flags & MSG_WAITFORONE) != 0 && is_list(header.number)) flags |= MSG_DONTWAIT;
    if (limit >= 0 && now_ns() - start >= limit) break;
  }
  answer.resize(at);
  std::memcpy(answer.data(), &result, sizeof result);
}

bool write_lengths(const GuestMessage& message, const MessageHead& head, GuestMemory& memory) {
  bool good = true;
  if (message.name_length != 0)
    good = memory.write(message.name_length, &head.name, sizeof head.name);
  if (message.header == 0) return good;
  const std::uint64_t control = head.control;
  return good &&
         memory.write(message.header + offsetof(msghdr, msg_controllen), &control,
                      sizeof control) &&
         memory.write(message.header + offsetof(msghdr, msg_flags), &head.flags, sizeof head.flags);
}

// Copies one received message into guest memory. 0 or -errno.
int write_received(const GuestMessage& message, const MessageHead& head, std::uint64_t done,
                   Items& items, GuestMemory& memory) {
  const std::uint32_t name_bytes = std::min(head.name, message.name_bytes);
  const std::uint8_t* payload = items.take(head.payload);
  const std::uint8_t* name = items.take(name_bytes);
  const std::uint8_t* control = items.take(head.control);
  if (payload == nullptr || name == nullptr || control == nullptr) return -EIO;
  if (head.payload > round_of(message, done) || head.control > message.control_bytes) return -EIO;
  if (message.payload.scatter(memory, done, payload, head.payload) != head.payload) return -EFAULT;
  if (name_bytes != 0 && !memory.write(message.name, name, name_bytes)) return -EFAULT;
  if (head.control != 0 && !memory.write(message.control, control, head.control)) return -EFAULT;
  return write_lengths(message, head, memory) ? 0 : -EFAULT;
}

// Brings message `index` of the answer to the guest. 0 or -errno.
int unpack_one(const Call& call, std::uint64_t index, std::uint64_t done, Items& items,
               GuestMemory& memory) {
  GuestMessage message;
  MessageHead head;
  if (!items.take_value(head)) return -EIO;
  if (const int error = parse(call, index, memory, message); error != 0) return error;
  if (done > message.payload.total()) return -EIO;
  if (!is_sending(call.number)) {
    if (const int error = write_received(message, head, done, items, memory); error != 0)
      return error;
  }
  if (is_list(call.number)) {
    const auto length = static_cast<std::uint32_t>(head.result);
    return memory.write(message.header + offsetof(mmsghdr, msg_len), &length, sizeof length)
               ? 0
               : -EFAULT;
  }
  return 0;
}

Next unpack_list(const Call& call, std::int64_t count, Items items, GuestMemory& memory,
                 Progress& progress) {
  progress.result = count;
  if (count > static_cast<std::int64_t>(count_of(call))) progress.result = -EIO;
  for (std::int64_t i = 0; i < progress.result; ++i) {
    const int error = unpack_one(call, static_cast<std::uint64_t>(i), 0, items, memory);
    if (error != 0) progress.result = i > 0 ? i : error;
  }
  return Next::kFinished;
}

}  // namespace

int pack_message(const Call& call, const Progress& progress, GuestMemory& memory, Packet& request) {
  RequestHeader header;
  header.number = static_cast<std::uint16_t>(call.number);
  header.args[kDescriptorArg] = call.args[0];
  header.args[kFlagsArg] = flags_of(call);
  int error = read_time_limit(call, memory, header.args[kTimeArg]);
  start_request(request, header);
  if (error == 0) error = pack_all(call, progress.done, memory, header, request);
  std::memcpy(request.data(), &header, sizeof header);
  return error;
}

void execute_message(const HomeIo& home, const RequestHeader& header, const Packet& request,
                     Packet& answer) {
  const auto descriptor = static_cast<std::int32_t>(header.args[kDescriptorArg]);
  const std::uint64_t count = header.args[kCountArg];
  if (count > kMaxIovecs || (!is_list(header.number) && count != 1))
    return answer_only(answer, -EINVAL);
  if (is_hidden(home, descriptor)) return answer_only(answer, -EBADF);
  if (count == 0) {  // the descriptor is looked at all the same
    int type = 0;
    socklen_t length = sizeof type;
    return answer_only(answer,
                       call(SYS_getsockopt, descriptor, SOL_SOCKET, SO_TYPE, &type, &length));
  }
  if (is_sending(header.number))
    execute_sends(home, header, request, answer);
  else
    execute_receives(home, header, request, answer);
}

Next unpack_message(const Call& call, const Packet& answer, GuestMemory& memory,
                    Progress& progress) {
  AnswerHeader header;
  std::memcpy(&header, answer.data(), sizeof header);
  const auto finished = [&](std::int64_t result) {
    progress.result =
        progress.done > 0 && result <= 0 ? static_cast<std::int64_t>(progress.done) : result;
    return Next::kFinished;
  };
  Items items(answer, sizeof header);
  if (header.result < 0 || items.empty()) return finished(header.result);
  if (is_list(call.number)) return unpack_list(call, header.result, items, memory, progress);
  const int error = unpack_one(call, 0, progress.done, items, memory);
  if (error != 0) return finished(error);
  if ((header.flags & kMayContinue) != 0) {
    progress.done += static_cast<std::uint64_t>(header.result);
    progress.result = static_cast<std::int64_t>(progress.done);
    return Next::kAgain;
  }
  progress.result = static_cast<std::int64_t>(progress.done) + header.result;
  return Next::kFinished;
}

}  // namespace xenspan::hypervisor::usermode::io
