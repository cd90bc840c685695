// The command line's connection to a xenspand: which one, and JSON lines both ways
// (dom0-daemon/daemon/control.md).
//
// Blocking; one thread. Ownership: the client owns the socket.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::cli {

using daemon::Json;

// How long a daemon may take for an answer before it counts as hung.
inline constexpr std::chrono::seconds kAnswerLimit{10};

// Which daemon is meant: an option, else XENSPAN_SOCKET, else the system's, else the test bed's
// host a.
struct DaemonChoice {
  std::string host;    // --host: a daemon of that name on this machine
  std::string socket;  // --socket
};

class Client {
 public:
  static Result<Client> connect(const DaemonChoice& choice);
  static Result<Client> connect_to(const std::string& socket_path);

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  Status send(const Json& message, const std::vector<int>& fds = {});
  // The next message; waits for at most `limit` when one is given. ECONNRESET: the daemon is gone.
  Result<Json> receive(std::optional<std::chrono::milliseconds> limit = {});
  // True when receive() would not wait.
  bool has_line() const { return input_.find('\n') != std::string::npos; }
  // Sends a request and takes its one answer; an answer that is a refusal becomes an error.
  Result<Json> ask(const Json& request, std::chrono::milliseconds limit = kAnswerLimit);

 private:
  Client(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
  std::string input_;
};

}  // namespace xenspan::cli
