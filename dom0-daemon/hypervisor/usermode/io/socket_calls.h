// Sockets, where more than copying is needed: one message in or out, descriptors in control data,
// options with pointers. Threading: any thread.
#pragma once

#include <cstdint>

#include "dom0-daemon/hypervisor/usermode/io/call_info.h"

namespace xenspan::hypervisor::usermode::io {

inline constexpr std::uint32_t kMaxName = 128;          // sizeof(struct sockaddr_storage)
inline constexpr std::uint32_t kMaxControl = 32 << 10;  // control data of one message, bytes
inline constexpr std::uint32_t kMaxOption = 64 << 10;   // a socket option's value, bytes

// A message's lengths. Sending: what follows. Receiving: how much room there is, then how much was
// used.
struct MessageHead {
  std::uint32_t name = 0, control = 0, payload = 0;
  std::uint32_t flags = 0;  // MSG_* that recvmsg(2) reports
  std::int64_t result = 0;  // of this one message (with MSG_TRUNC more than the payload)
};

struct MessageParts {
  void* name = nullptr;
  void* control = nullptr;
  void* payload = nullptr;
};

// Whether a transfer to this descriptor is one message that cannot be split.
bool is_message_socket(std::int32_t descriptor);

// -EBADF when SCM_RIGHTS names a hidden descriptor.
std::int64_t send_one(const HomeIo& home, std::int32_t descriptor, std::uint32_t flags,
                      const MessageHead& head, const MessageParts& parts);
// `head` comes with the room and leaves with what was used. Received descriptors that would be
// hidden are closed, as Linux does when the table is full (MSG_CTRUNC).
std::int64_t receive_one(const HomeIo& home, std::int32_t descriptor, std::uint32_t flags,
                         MessageHead& head, const MessageParts& parts);

// Options whose value holds a pointer, or that make the kernel keep pages of the buffer, are
// refused (ENOPROTOOPT).
std::int64_t run_setsockopt(const HomeIo& home, Invocation& invocation);
std::int64_t run_getsockopt(const HomeIo& home, Invocation& invocation);

}  // namespace xenspan::hypervisor::usermode::io
