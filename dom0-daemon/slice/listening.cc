#include "dom0-daemon/slice/listening.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

namespace xenspan::slice {

Result<Listening> listen_at(const std::string& text) {
  const bool six = text.find(':') != std::string::npos;
  sockaddr_storage address{};
  socklen_t bytes = 0;
  if (six) {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&address);
    in6->sin6_family = AF_INET6;
    bytes = sizeof *in6;
    if (::inet_pton(AF_INET6, text.c_str(), &in6->sin6_addr) != 1) bytes = 0;
  } else {
    auto* in = reinterpret_cast<sockaddr_in*>(&address);
    in->sin_family = AF_INET;
    bytes = sizeof *in;
    if (::inet_pton(AF_INET, text.c_str(), &in->sin_addr) != 1) bytes = 0;
  }
  if (bytes == 0)
    return Error{EINVAL, "cannot listen on " + text + ": it is not a numeric address"};
  Listening listening;
  UniqueFd& socket = listening.socket;
  socket.reset(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), bytes) != 0 ||
      ::listen(socket.get(), SOMAXCONN) != 0)
    return system_error(errno, "cannot listen on " + text);
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &bytes);
  listening.port = ntohs(six ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
  return listening;
}

}  // namespace xenspan::slice
