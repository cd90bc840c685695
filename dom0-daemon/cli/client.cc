#include "dom0-daemon/cli/client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr std::size_t kMaxFds = 250;
const std::string kRoot = daemon::kRunRoot;

// The control socket of the named host: of this machine's daemon, or in the test bed.
Result<std::string> socket_of_host(const std::string& host) {
  if (!daemon::is_host_name(host))
    return Error{EINVAL, fmt::format("\"{}\" is not a host name: see `xenspan hosts`", host)};
  std::error_code error;
  std::vector<fs::path> places = {fs::path(kRoot) / host / "control"};
  const fs::path bed = fs::read_symlink(kRoot + "/default", error);
  if (!error) places.push_back(bed.parent_path().parent_path() / host / "control");
  for (const fs::path& place : places)
    if (fs::exists(place, error)) return place.string();
  return Error{ENOENT,
               fmt::format("no xenspand named {} runs on this machine: --host chooses among "
                           "those in {}, --socket takes any path",
                           host, kRoot)};
}

Result<Client> connect_by_default() {
  for (const char* link : {"/system", "/default"}) {
    auto client = Client::connect_to(kRoot + link);
    if (client || client.error().code == EACCES) return client;
  }
  return Error{
      ECONNREFUSED,
      "no xenspand runs on this machine: start it with `systemctl start xenspand`, or make "
      "a test bed with `sudo xenspan testbed up 2`"};
}

}  // namespace

Result<Client> Client::connect(const DaemonChoice& choice) {
  if (!choice.socket.empty()) return connect_to(choice.socket);
  if (!choice.host.empty()) {
    const auto path = socket_of_host(choice.host);
    if (!path) return path.error();
    return connect_to(*path);
  }
  const char* environment = std::getenv("XENSPAN_SOCKET");
  if (environment != nullptr && *environment != '\0') return connect_to(environment);
  return connect_by_default();
}

Result<Client> Client::connect_to(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path)
    return Error{ENAMETOOLONG, socket_path + " is too long for a socket's path"};
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return system_error(errno, "cannot reach xenspand at " + socket_path,
                        "is it running? See `systemctl status xenspand`");
  return Client(std::move(fd), socket_path);
}

Status Client::send(const Json& message, const std::vector<int>& fds) {
  if (fds.size() > kMaxFds)
    return Error{EMFILE, fmt::format("the program would inherit {} open files, the limit is {}: "
                                     "close some",
                                     fds.size(), kMaxFds)};
  const std::string line = daemon::to_line(message) + "\n";
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  for (std::size_t done = 0; done < line.size();) {
    iovec part{const_cast<char*>(line.data()) + done, line.size() - done};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (done == 0 && !fds.empty()) {
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
    }
    const ssize_t sent = sendmsg(fd_.get(), &header, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return system_error(errno, "cannot talk to xenspand", "is it still running?");
    done += static_cast<std::size_t>(sent);
  }
  return {};
}

Result<Json> Client::receive(std::optional<milliseconds> limit) {
  for (;;) {
    const std::size_t end = input_.find('\n');
    if (end != std::string::npos) {
      auto message = daemon::parse_object(std::string_view(input_).substr(0, end));
      input_.erase(0, end + 1);
      if (!message) return Error{EBADMSG, "xenspand sent what this xenspan does not understand"};
      return message;
    }
    pollfd wait{fd_.get(), POLLIN, 0};
    const int ready = poll(&wait, 1, limit ? static_cast<int>(limit->count()) : -1);
    if (ready == 0) return Error{ETIMEDOUT, "xenspand does not answer: see its log"};
    if (ready < 0 && errno == EINTR) continue;
    std::array<char, 65536> bytes;
    const ssize_t got = recv(fd_.get(), bytes.data(), bytes.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Error{ECONNRESET, "xenspand closed the connection: see its log"};
    input_.append(bytes.data(), static_cast<std::size_t>(got));
  }
}

Result<Json> Client::ask(const Json& request, milliseconds limit) {
  if (Status sent = send(request); !sent) return sent.error();
  auto answer = receive(limit);
  if (!answer || daemon::flag_field(*answer, "ok")) return answer;
  return Error{EREMOTEIO, daemon::text_or(*answer, "error", "xenspand refused without a reason")};
}

}  // namespace xenspan::cli
