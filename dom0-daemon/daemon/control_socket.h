// The control socket: where the command line (and any program of the machine's users) talks to the
// daemon.
//
// A Unix stream socket; both directions carry JSON objects, one a line. Descriptors come with the
// line that mentions them (SCM_RIGHTS). Who is calling is told by the kernel. The messages are in
// dom0-daemon/daemon/control.md. Threading: the loop's thread. Clients are known by number, so that
// an answer to one that has gone is harmless.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/json_fields.h"
#include "dom0-daemon/daemon/user.h"

namespace xenspan::daemon {

using ClientId = std::uint64_t;

class ControlSocket {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void client_message(ClientId client, const User& user, const Json& message,
                                std::vector<UniqueFd> fds) = 0;
    virtual void client_closed(ClientId client) = 0;
  };

  static Result<std::unique_ptr<ControlSocket>> open(EventLoop& loop, const std::string& path,
                                                     Handler& handler);
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;
  ~ControlSocket();

  void send(ClientId client, const Json& message);
  // Sends what is left without waiting for long; at the end of the process.
  void flush();

 private:
  struct Client {
    UniqueFd fd;
    User user;
    std::string input;
    std::vector<UniqueFd> fds;
    std::string output;
    std::unique_ptr<FdWatch> readable;
    std::unique_ptr<FdWatch> writable;
  };

  ControlSocket(EventLoop& loop, Handler& handler) : loop_(loop), handler_(handler) {}
  void accept_client();
  void receive(ClientId id);
  // False when the client was dropped.
  bool take_lines(ClientId id);
  void write_out(ClientId id);
  void drop(ClientId id);

  EventLoop& loop_;
  Handler& handler_;
  UniqueFd listener_;
  std::unique_ptr<FdWatch> acceptable_;
  std::map<ClientId, std::unique_ptr<Client>> clients_;
  ClientId next_ = 1;
};

}  // namespace xenspan::daemon
