// One TLS connection to another host's daemon: bytes in, whole JSON messages out.
//
// A PeerLink knows TLS and framing; who the peer is and what messages mean is Cluster's business.
// Whatever the other end sends, the worst outcome is that the link closes with a reason. Threading:
// the loop's thread. Ownership: Cluster owns links; a handler call may be answered with
// EventLoop::later to delete the link, never directly.
#pragma once

#include <event2/bufferevent.h>

#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/framing.h"
#include "dom0-daemon/daemon/tls.h"

namespace xenspan::daemon {

class PeerLink {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // The handshake is done: the peer holds the cluster key.
    virtual void link_open(PeerLink& link) = 0;
    virtual void link_message(PeerLink& link, Json message) = 0;
    // Once, and the last call for this link.
    virtual void link_closed(PeerLink& link, const std::string& reason) = 0;
  };

  // An accepted connection; `remote` is the peer's address for log lines.
  PeerLink(EventLoop& loop, TlsContext& tls, Handler& handler, UniqueFd accepted,
           std::string remote);
  // A connection to be made. Failure is reported through link_closed.
  PeerLink(EventLoop& loop, TlsContext& tls, Handler& handler, const PeerAddress& to);
  PeerLink(const PeerLink&) = delete;
  PeerLink& operator=(const PeerLink&) = delete;
  ~PeerLink();

  bool dialed() const { return dialed_; }
  bool is_open() const { return open_; }
  const std::string& remote() const { return remote_; }
  // Queues the message. A peer that does not read loses the link.
  void send(const Json& message);
  // Closes once everything queued is sent; no more messages are delivered. link_closed still
  // follows.
  void close_after_sending(std::string reason);
  // Closes now: link_closed follows from the loop.
  void close(std::string reason);
  // For the orderly end of the process.
  bool sending() const;

 private:
  void setup();
  void on_read();
  void on_write();
  void on_event(short what);
  std::string failure(short what) const;

  EventLoop& loop_;
  TlsContext& tls_;
  Handler& handler_;
  const bool dialed_;
  std::string remote_;
  std::string closing_reason_;
  bool open_ = false;
  bool draining_ = false;
  bool closed_ = false;
  FrameReader reader_;
  bufferevent* bev_ = nullptr;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

std::string address_text(const std::string& address, std::uint16_t port);

}  // namespace xenspan::daemon
