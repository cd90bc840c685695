// What a client of the control socket can ask for: run, signal, detach, list, hosts, destroy,
// stats, migrate, member.
//
// Each request is checked here: its members' types and ranges, and whether this user may do this to
// that domain. dom0-daemon/daemon/control.md has the messages. Threading: the loop's thread.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/cluster.h"
#include "dom0-daemon/daemon/control_socket.h"
#include "dom0-daemon/daemon/domain_table.h"

namespace xenspan::daemon {

class Commands : public ControlSocket::Handler {
 public:
  // `own_record` tells about this host as it is now.
  Commands(const Config& config, Cluster& cluster, DomainTable& domains,
           std::function<HostRecord()> own_record);
  void set_socket(ControlSocket* socket) { socket_ = socket; }

  void client_message(ClientId client, const User& user, const Json& message,
                      std::vector<UniqueFd> fds) override;
  void client_closed(ClientId client) override;

  // From the domain table.
  void domain_changed(const DomainRecord& record);
  void domain_over(const Domain& domain);
  // A peer's message about a command. False: not such a message.
  bool handle(const std::string& host, const std::string& op, const Json& message);
  // This daemon ends: commands whose domain's home has moved to another host hear where it is.
  void end();
  // An admin's request in xenstore.
  Status destroy_requested(const std::string& uuid);

 private:
  void run(ClientId client, const User& user, const Json& message, std::vector<UniqueFd> fds);
  Result<DomainSpec> make_spec(const User& user, const Json& message, std::vector<UniqueFd> fds);
  Result<Placement> choose_placement(const Json& message);
  void steer(ClientId client, const std::string& op, const Json& message);
  void list(ClientId client);
  void hosts(ClientId client);
  void destroy(ClientId client, const User& user, const Json& message);
  void stats(ClientId client, const User& user, const Json& message);
  // The domain a message names, if this user may manage it.
  Result<DomainRecord> managed_domain(const User& user, const Json& message) const;
  Status destroy_domain(const DomainRecord& record, const std::string& by);
  void peer_stats(const std::string& host, const Json& message);
  // commands_away.cc: the domain of a command that waits here has its home elsewhere now.
  void steer_away(const std::string& uuid, int number);
  void close_away(const std::string& uuid);
  void over_away(const DomainRecord& record);
  bool handle_away(const std::string& host, const std::string& op, const Json& message);
  // To the command that waits here for this domain's end, if there is one; it waits no more.
  void tell_end(const std::string& uuid, const Domain::Outcome& outcome);
  // commands_at_home.cc
  struct AtHome;
  Domain::MoveDone answer_to(ClientId client);
  // Adds to the request which domain it is about; the client gets the home's answer.
  void ask_home(ClientId client, const DomainRecord& record, Json request);
  bool handle_at_home(const std::string& host, const std::string& op, const Json& message);
  // commands_migrate.cc
  void migrate(ClientId client, const User& user, const Json& message);
  void move_vcpu(Domain& domain, const Json& wish, Domain::MoveDone done);
  Result<std::uint32_t> check_move(const DomainRecord& record, const Json& wish) const;
  Result<CoreChoice> choose_core_for(const DomainRecord& record, const std::string& name,
                                     bool alone) const;
  // commands_members.cc
  void member(ClientId client, const User& user, const Json& message);
  void change_member(Domain& domain, const Json& wish, Domain::MoveDone done);
  void answer(ClientId client, Json message);
  void refuse(ClientId client, const std::string& error);

  const Config& config_;
  Cluster& cluster_;
  DomainTable& domains_;
  const std::function<HostRecord()> own_record_;
  ControlSocket* socket_ = nullptr;
  std::map<std::string, ClientId> attached_;  // run: who waits for a domain's end, by uuid
  std::map<std::string, std::set<ClientId>> destroying_;  // destroy: who waits, by uuid
  std::map<std::uint64_t, ClientId> remote_stats_;        // stats asked of other homes
  // Migrations and changes of members asked of other homes: who waits for which.
  std::map<std::uint64_t, std::pair<ClientId, std::string>> remote_moves_;
  std::uint64_t next_stats_ = 1;  // numbers both kinds of requests
};

}  // namespace xenspan::daemon
