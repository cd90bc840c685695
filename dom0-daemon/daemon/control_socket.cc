#include "dom0-daemon/daemon/control_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace xenspan::daemon {
namespace {

constexpr std::size_t kMaxLine = 4 << 20;
constexpr std::size_t kMaxOutput = 16 << 20;
constexpr std::size_t kMaxClients = 512;
constexpr std::size_t kMaxClientsOfUser = 128;  // root is not limited
constexpr std::size_t kMaxFds = 250;            // in one message; the kernel's limit is 253

void take_fds(const msghdr& header, std::vector<UniqueFd>& fds) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&header), part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
}

}  // namespace

Result<std::unique_ptr<ControlSocket>> ControlSocket::open(EventLoop& loop, const std::string& path,
                                                           Handler& handler) {
  std::unique_ptr<ControlSocket> control(new ControlSocket(loop, handler));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return Error{ENAMETOOLONG, "the control socket's path is too long: " + path};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  control->listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int fd = control->listener_.get();
  unlink(path.c_str());
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, 128) != 0)
    return system_error(errno, "cannot make the control socket " + path, "set socket or rundir");
  // Every user may ask; what a user may do is decided by who the kernel says it is.
  chmod(path.c_str(), 0666);
  control->acceptable_ = std::make_unique<FdWatch>(
      loop, fd, EV_READ, [self = control.get()](short) { self->accept_client(); });
  return control;
}

ControlSocket::~ControlSocket() = default;

void ControlSocket::accept_client() {
  UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  if (clients_.size() >= kMaxClients) {
    log::warning("a command was turned away: {} others are being served", clients_.size());
    return;
  }
  auto user = peer_user(fd.get());
  if (!user) return log::error("{}", user.error().message);
  const auto same_user = std::count_if(clients_.begin(), clients_.end(), [&](const auto& each) {
    return each.second->user.uid == user->uid;
  });
  if (user->uid != 0 && static_cast<std::size_t>(same_user) >= kMaxClientsOfUser)
    return log::warning("a command of {} was turned away: {} others run", user->name, same_user);
  const ClientId id = next_++;
  auto client = std::make_unique<Client>();
  client->user = std::move(*user);
  client->readable =
      std::make_unique<FdWatch>(loop_, fd.get(), EV_READ, [this, id](short) { receive(id); });
  client->fd = std::move(fd);
  clients_.emplace(id, std::move(client));
}

void ControlSocket::receive(ClientId id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = *found->second;
  std::array<char, 65536> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE((kMaxFds + 3) * sizeof(int))> control;
  iovec part{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t got = recvmsg(client.fd.get(), &header, MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return drop(id);
  take_fds(header, client.fds);
  client.input.append(bytes.data(), static_cast<std::size_t>(got));
  if (client.fds.size() > kMaxFds || client.input.size() > kMaxLine) {
    log::warning("a command of {} was dropped: too long a message", client.user.name);
    return drop(id);
  }
  take_lines(id);
}

bool ControlSocket::take_lines(ClientId id) {
  for (;;) {
    // Looked up anew: the handler may have dropped the client.
    const auto found = clients_.find(id);
    if (found == clients_.end()) return false;
    Client& client = *found->second;
    const std::size_t end = client.input.find('\n');
    if (end == std::string::npos) return true;
    const auto message = parse_object(std::string_view(client.input).substr(0, end));
    client.input.erase(0, end + 1);
    std::vector<UniqueFd> fds;
    std::size_t wanted = 0;
    if (message)
      if (const Json* numbers = array_field(*message, "fds")) wanted = numbers->size();
    if (!message || wanted > client.fds.size()) {
      log::warning("a command of {} was dropped: malformed message", client.user.name);
      drop(id);
      return false;
    }
    std::move(client.fds.begin(), client.fds.begin() + static_cast<std::ptrdiff_t>(wanted),
              std::back_inserter(fds));
    client.fds.erase(client.fds.begin(), client.fds.begin() + static_cast<std::ptrdiff_t>(wanted));
    handler_.client_message(id, client.user, *message, std::move(fds));
  }
}

void ControlSocket::send(ClientId id, const Json& message) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  found->second->output += to_line(message) + "\n";
  write_out(id);
}

void ControlSocket::write_out(ClientId id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = *found->second;
  while (!client.output.empty()) {
    const ssize_t sent =
        ::send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    // The read side sees the end of the connection and drops the client.
    if (sent < 0) return client.output.clear();
    client.output.erase(0, static_cast<std::size_t>(sent));
  }
  if (client.output.empty()) {
    client.writable.reset();
  } else if (client.output.size() > kMaxOutput) {
    log::warning("a command of {} does not read its answers and was dropped", client.user.name);
    loop_.later([this, id] { drop(id); });
  } else if (!client.writable) {
    client.writable = std::make_unique<FdWatch>(loop_, client.fd.get(), EV_WRITE,
                                                [this, id](short) { write_out(id); });
  }
}

void ControlSocket::drop(ClientId id) {
  if (clients_.erase(id) > 0) handler_.client_closed(id);
}

void ControlSocket::flush() {
  for (auto& [id, client] : clients_) write_out(id);
}

}  // namespace xenspan::daemon
