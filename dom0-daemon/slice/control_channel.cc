#include "dom0-daemon/slice/control_channel.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace xenspan::slice {
namespace {

constexpr std::size_t kMaxPacket = 1 << 20;   // bytes, as control.md says
constexpr std::size_t kMaxDescriptors = 253;  // SCM_MAX_FD, include/net/scm.h

std::vector<UniqueFd> descriptors_of(msghdr& message) {
  std::vector<UniqueFd> all;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr;
       item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(item) + i * sizeof(int), sizeof descriptor);
      all.emplace_back(descriptor);
    }
  }
  return all;
}

}  // namespace

ControlChannel::ControlChannel(UniqueFd socket) : socket_(std::move(socket)) {
  const int bytes = kMaxPacket + 4096;
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
}

Result<ControlChannel::Packet> ControlChannel::receive() {
  std::vector<char> text(kMaxPacket);
  alignas(cmsghdr) char beside[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
  iovec piece{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = beside;
  message.msg_controllen = sizeof beside;
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return Error{EPIPE, "xenspand has gone"};
  Packet packet;
  packet.descriptors = descriptors_of(message);
  packet.body = nlohmann::json::parse(text.data(), text.data() + got, nullptr, false);
  if (!packet.body.is_object())
    return Error{EPROTO, "xenspand sent a packet that is not a JSON object"};
  return packet;
}

void ControlChannel::send(const nlohmann::json& event) {
  // Names and paths may hold any bytes; what is not UTF-8 is shown as U+FFFD.
  const std::string text = event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::lock_guard guard(lock_);
  while (::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0 && errno == EINTR) {
  }
}

}  // namespace xenspan::slice
