// The hosts of the cluster as this daemon sees them: who is configured or was learned, who is
// connected, what each told.
//
// One connection per pair of hosts. Both ends may dial; the end that accepts answers a `hello` with
// `welcome` or `refused`, and when two dials cross, the one from the host with the smaller name
// wins. A connection carries a heartbeat with the host's record; a peer that is silent for the
// configured time, or whose connection ends, is lost and is dialed again with back-off. Nothing a
// peer sends before its `hello` was accepted changes anything but a log line. docs of the messages:
// dom0-daemon/daemon/cluster.md. Threading: the loop's thread.
#pragma once

#include <event2/listener.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/host_record.h"
#include "dom0-daemon/daemon/peer_link.h"
#include "dom0-daemon/daemon/tls.h"

namespace xenspan::daemon {

inline constexpr std::uint64_t kClusterProtocol = 1;

enum class HostState { kConnecting, kActive, kLost };
const char* host_state_text(HostState state);

class Cluster : public PeerLink::Handler {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void host_joined(const HostRecord& record) = 0;
    virtual void host_changed(const HostRecord& record) = 0;
    // `cause` continues the words "lost host b: ".
    virtual void host_lost(const std::string& name, const std::string& cause) = 0;
    virtual void host_message(const std::string& name, Json message) = 0;
  };

  struct Peer {
    PeerAddress address;
    HostState state = HostState::kConnecting;
    std::string error;                 // why it is not active, for people
    std::optional<HostRecord> record;  // the last one it sent
  };

  // `tls` null: no cluster key, this host works alone.
  Cluster(EventLoop& loop, std::unique_ptr<TlsContext> tls, const Config& config, Handler& handler);
  ~Cluster() override;

  // Opens the listening socket and starts dialing.
  Status start();
  // The record that goes out with hello and heartbeat.
  void set_record(const HostRecord& record);
  // False when the host is not connected.
  bool send(const std::string& name, const Json& message);
  void send_to_all(const Json& message);
  const std::map<std::string, Peer>& peers() const { return peers_; }
  // Tells all peers that this host leaves. After that wait until !sending(), or for a moment.
  void leave();
  bool sending() const;

 private:
  struct Connection {
    std::unique_ptr<PeerLink> link;
    std::string name;  // dialed: expected; accepted: known after hello
    std::string instance;
    bool established = false;
    int silent_ticks = 0;
    std::unique_ptr<Timer> handshake;  // limit until hello or welcome
  };
  struct Dialing {
    std::unique_ptr<Timer> retry;
    std::chrono::milliseconds delay{0};
  };

  void link_open(PeerLink& link) override;
  void link_message(PeerLink& link, Json message) override;
  void link_closed(PeerLink& link, const std::string& reason) override;

  void accepted(UniqueFd fd, const std::string& remote);
  void add_peer(const PeerAddress& address);
  void dial(const std::string& name);
  void dial_later(const std::string& name);
  void tick();
  Json greeting(const char* op) const;
  void on_hello(Connection& connection, const Json& message);
  void on_welcome(Connection& connection, const Json& message);
  void on_refused(Connection& connection, const Json& message);
  // An acceptable greeting's record; otherwise why not.
  Result<HostRecord> check_greeting(const Json& message) const;
  void refuse(Connection& connection, const std::string& reason);
  void establish(Connection& connection, const HostRecord& record, const Json& greeting);
  void learn(const Json& greeting);
  void update(const std::string& name, const Json& record);
  Connection* find(const PeerLink& link);
  Connection* established(const std::string& name);
  bool dialing(const std::string& name) const;
  // A stranger's connection was dropped. Strangers must not be able to fill the disk with log
  // lines.
  void log_drop(const std::string& remote, const std::string& reason);
  void set_error(const std::string& name, const std::string& reason);

  EventLoop& loop_;
  std::unique_ptr<TlsContext> tls_;
  const Config& config_;
  Handler& handler_;
  HostRecord record_;
  const std::string instance_;  // random: tells a restarted daemon from a second connection
  bool leaving_ = false;
  int drops_ = 0;  // since the last tick
  evconnlistener* listener_ = nullptr;
  std::map<std::string, Peer> peers_;
  std::map<std::string, Dialing> dialing_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::unique_ptr<Timer> tick_;
  int lost_ticks_ = 1;
};

}  // namespace xenspan::daemon
