#include "dom0-daemon/hypervisor/usermode/io/socket_calls.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/system_call.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

constexpr int kProtocolMptcp = 262;  // IPPROTO_MPTCP

// A socket's integer option, or -1.
int option_of(std::int32_t descriptor, int option) {
  int value = 0;
  socklen_t length = sizeof value;
  return call(SYS_getsockopt, descriptor, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

bool carries_rights(const cmsghdr& header) {
  return header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS;
}

// Calls visit(header, offset, data bytes) for each control message that lies whole in the buffer.
template <typename Visit>
void for_each_control(const std::uint8_t* control, std::size_t bytes, const Visit& visit) {
  for (std::size_t at = 0; bytes - at >= sizeof(cmsghdr);) {
    cmsghdr header;
    std::memcpy(&header, control + at, sizeof header);
    if (header.cmsg_len < sizeof header || header.cmsg_len > bytes - at) return;
    visit(header, at, header.cmsg_len - sizeof header);
    at += std::min<std::size_t>(CMSG_ALIGN(header.cmsg_len), bytes - at);
  }
}

bool sends_hidden(const HomeIo& home, const void* control, std::size_t bytes) {
  bool hidden = false;
  const auto* start = static_cast<const std::uint8_t*>(control);
  for_each_control(start, bytes, [&](const cmsghdr& header, std::size_t at, std::size_t length) {
    if (!carries_rights(header)) return;
    for (std::size_t i = 0; i + sizeof(int) <= length; i += sizeof(int)) {
      int descriptor;
      std::memcpy(&descriptor, start + at + sizeof header + i, sizeof descriptor);
      hidden = hidden || is_hidden(home, descriptor);
    }
  });
  return hidden;
}

// Closes received descriptors that the guest must not see and closes the gaps. Returns the control
// data's new length.
std::size_t drop_hidden(const HomeIo& home, std::uint8_t* control, std::size_t bytes,
                        std::uint32_t& flags) {
  std::size_t end = 0;
  for_each_control(control, bytes, [&](cmsghdr header, std::size_t at, std::size_t length) {
    std::size_t kept = length;
    if (carries_rights(header)) {
      kept = 0;
      for (std::size_t i = 0; i + sizeof(int) <= length; i += sizeof(int)) {
        int descriptor;
        std::memcpy(&descriptor, control + at + sizeof header + i, sizeof descriptor);
        if (is_hidden(home, descriptor))
          call(SYS_close, descriptor);
        else
          std::memcpy(control + at + sizeof header + std::exchange(kept, kept + sizeof(int)),
                      &descriptor, sizeof(int));
      }
      if (kept < length) flags |= MSG_CTRUNC;
      if (kept == 0) return;
    }
    header.cmsg_len = sizeof header + kept;
    std::memmove(control + end, control + at, header.cmsg_len);
    std::memcpy(control + end, &header, sizeof header);
    end += std::min<std::size_t>(CMSG_ALIGN(header.cmsg_len), bytes - end);
  });
  return end;
}

msghdr header_of(const MessageHead& head, const MessageParts& parts, iovec& payload) {
  payload = {parts.payload, head.payload};
  msghdr message{};
  message.msg_name = head.name != 0 ? parts.name : nullptr;
  message.msg_namelen = head.name;
  message.msg_iov = &payload;
  message.msg_iovlen = 1;
  message.msg_control = head.control != 0 ? parts.control : nullptr;
  message.msg_controllen = head.control;
  return message;
}

// MSG_TRUNC on TCP throws data away without filling the buffer.
bool fills_nothing(std::int32_t descriptor, std::uint32_t flags) {
  if ((flags & MSG_TRUNC) == 0) return false;
  const int protocol = option_of(descriptor, SO_PROTOCOL);
  return protocol == IPPROTO_TCP || protocol == kProtocolMptcp;
}

bool is_pointer_option(int level, int option) {
  if (level == SOL_SOCKET)
    return option == SO_ATTACH_FILTER || option == SO_ATTACH_REUSEPORT_CBPF ||
           option == SO_ZEROCOPY;
  return level == IPPROTO_TCP && option == TCP_ZEROCOPY_RECEIVE;
}

}  // namespace

bool is_message_socket(std::int32_t descriptor) {
  const int type = option_of(descriptor, SO_TYPE);
  return type >= 0 && type != SOCK_STREAM;
}

std::int64_t send_one(const HomeIo& home, std::int32_t descriptor, std::uint32_t flags,
                      const MessageHead& head, const MessageParts& parts) {
  if (sends_hidden(home, parts.control, head.control)) return -EBADF;
  iovec payload;
  const msghdr message = header_of(head, parts, payload);
  return call(SYS_sendmsg, descriptor, &message, flags & ~std::uint32_t{MSG_ZEROCOPY});
}

std::int64_t receive_one(const HomeIo& home, std::int32_t descriptor, std::uint32_t flags,
                         MessageHead& head, const MessageParts& parts) {
  const MessageHead room = head;
  iovec payload;
  msghdr message = header_of(head, parts, payload);
  head = MessageHead();
  head.result = call(SYS_recvmsg, descriptor, &message, flags);
  if (head.result < 0) return head.result;
  head.flags = static_cast<std::uint32_t>(message.msg_flags);
  head.name = message.msg_namelen;  // may be longer than the room: the name was cut
  head.payload = static_cast<std::uint32_t>(std::min<std::int64_t>(head.result, room.payload));
  if (fills_nothing(descriptor, flags)) head.payload = 0;
  if (room.control != 0)
    head.control = static_cast<std::uint32_t>(drop_hidden(
        home, static_cast<std::uint8_t*>(parts.control), message.msg_controllen, head.flags));
  return head.result;
}

std::int64_t run_setsockopt(const HomeIo& home, Invocation& invocation) {
  if (is_pointer_option(invocation.int_arg(1), invocation.int_arg(2))) return -ENOPROTOOPT;
  return run_plain(home, invocation);
}

std::int64_t run_getsockopt(const HomeIo& home, Invocation& invocation) {
  // SO_ATTACH_FILTER is SO_GET_FILTER here: its length counts instructions, so it would overrun a
  // buffer of bytes.
  if (is_pointer_option(invocation.int_arg(1), invocation.int_arg(2))) return -ENOPROTOOPT;
  return run_plain(home, invocation);
}

}  // namespace xenspan::hypervisor::usermode::io
