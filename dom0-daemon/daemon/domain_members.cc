// Hosts come and go while a domain runs: the steps of membership.h, carried out by the slices.
//
// Each step is a few orders to slices (dom0-daemon/slice/control.md) and their answers; what must
// be over where before the next one says dsm-rdma/membership.h. The answer to an order that belongs
// to a step which is over is not listened to (member_turn_).
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "dom0-daemon/daemon/domain.h"
#include "dom0-daemon/daemon/member_shares.h"
#include "dom0-daemon/daemon/size_text.h"
#include "dsm-rdma/types.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;
using Step = Membership::Step;
using xenstore::MemberState;

constexpr milliseconds kJoinLimit{40000};      // longer than a slice tries to connect
constexpr milliseconds kXenJoinLimit{240000};  // `xl` makes a domain, and its memory is given back
constexpr milliseconds kLookAgain{100};
constexpr milliseconds kNoLimit{0};

bool encrypted(const Placement& placement) {
  return std::any_of(placement.hosts.begin(), placement.hosts.end(),
                     [](const HostRecord& host) { return host.encrypt; });
}

}  // namespace

// ---- requests ----

void Domain::ask_member(const std::string& host, const std::string& word) {
  membership_.ask(host, word);
  members_changed();
}

void Domain::withdraw_member(const std::string& host) {
  if (!membership_.withdraw(host)) return;
  log::info("domain {}: the request for host {} was withdrawn", record_.name, host);
  for (MemberWait& wait : take_waits(host))
    wait.done(Error{ECANCELED, fmt::format("the request for host {} was withdrawn", host)});
}

void Domain::await_member(const std::string& host, MoveDone done) {
  member_waits_.push_back({host, false, std::move(done)});
}

void Domain::member_unwritten(const std::string& host, const Error& error) {
  for (MemberWait& wait : take_waits(host)) wait.done(error);
}

std::vector<Domain::MemberWait> Domain::take_waits(const std::string& host) {
  std::vector<MemberWait> taken;
  for (auto each = member_waits_.begin(); each != member_waits_.end();) {
    if (each->host != host) {
      ++each;
      continue;
    }
    taken.push_back(std::move(*each));
    each = member_waits_.erase(each);
  }
  return taken;
}

void Domain::open_members() {
  membership_.open([this](const std::string& host) { return may_join(host); },
                   [this] { return heir_of_home(); });
  members_changed();
}

void Domain::close_members() {
  membership_.close(fmt::format("domain {} has ended", record_.name));
  ++member_turn_;
  member_limit_.reset();
  orders_.clear();
  tell_answers();
  for (MemberWait& wait : std::exchange(member_waits_, {}))
    wait.done(Error{ESRCH, fmt::format("domain {} has ended", record_.name)});
}

Status Domain::may_join(const std::string& host) {
  const auto record = handler_.find_host(host);
  if (!record) return record.error();
  const Placement& placement = spec_.placement;
  if (Status fits = check_joins(placement.hosts[static_cast<std::size_t>(home_index_)], *record);
      !fits)
    return fits;
  if (spec_.transport == xenstore::Transport::kVerbs)
    return Error{EOPNOTSUPP,
                 fmt::format("the pages of domain {} travel by RDMA, and hosts join over TCP only: "
                             "start it with --transport tcp",
                             record_.name)};
  if (std::find(spec_.without.begin(), spec_.without.end(), "parallel") != spec_.without.end())
    return Error{EOPNOTSUPP,
                 fmt::format("domain {} does without `parallel`, and its slots cannot move: start "
                             "it with",
                             record_.name)};
  if (record->encrypt && !encrypted(placement))
    return Error{EPERM, fmt::format("host {} wants guest memory encrypted, and domain {} began "
                                    "without: set encrypt = true on its first hosts",
                                    host, record_.name)};
  if (spec_.kind == xenstore::Backend::kXen) {
    if (Status may = handler_.may_hold_slice(*this, *record); !may) return may;
    return room_for(host);
  }
  const std::uint64_t memory = placement.memory_promised ? record->memory_free() : record->memory;
  if (memory < placement.memory)
    return Error{ENOMEM,
                 fmt::format("not enough memory on host {}: domain {} may use {}, and {} "
                             "are there: choose another host",
                             host, record_.name, size_text(placement.memory), size_text(memory))};
  return room_for(host);
}

Status Domain::room_for(const std::string& host) const {
  if (index_of(host) < 0 && members_.size() >= dsm::kMaxHosts)
    return Error{ENOSPC, fmt::format("domain {} has had {} hosts: take one that was a member",
                                     record_.name, dsm::kMaxHosts)};
  return {};
}

// ---- what has changed, for everybody ----

void Domain::tell_answers() {
  for (const Membership::Answer& answer : membership_.take_answers()) {
    if (answer.status)
      log::info("domain {}: {} of host {}", record_.name, xenstore::to_word(answer.request),
                answer.host);
    else
      log::warning("domain {}: {}", record_.name, answer.status.error().message);
    handler_.member_answered(*this, answer);
    if (answer.status) {
      for (MemberWait& wait : member_waits_) wait.taken = wait.taken || wait.host == answer.host;
      continue;
    }
    for (MemberWait& wait : take_waits(answer.host)) wait.done(answer.status.error());
  }
}

void Domain::members_changed() {
  if (phase_ == Phase::kRunning) {
    for (const auto& [host, member] : membership_.members()) {
      if (index_of(host) < 0) number_host(host);
      DomainMember& shown = record_.members[static_cast<std::size_t>(index_of(host))];
      shown.forgotten = false;
      shown.state = member.state;
      shown.error = member.error;
    }
    for (const std::string& host : membership_.take_forgotten())
      if (const int index = index_of(host); index >= 0)
        record_.members[static_cast<std::size_t>(index)].forgotten = true;
    begin_member_step();
  }
  tell_answers();
  if (phase_ != Phase::kRunning) return;
  changed();
  settle_waits();
}

// A command has what it waited for when nothing is under way for its host any more.
void Domain::settle_waits() {
  std::vector<std::string> over;
  for (const MemberWait& wait : member_waits_)
    if (wait.taken && !membership_.busy(wait.host)) over.push_back(wait.host);
  for (const std::string& host : over) {
    const auto found = membership_.members().find(host);
    const bool there = found != membership_.members().end();
    for (MemberWait& wait : take_waits(host)) {
      if (there && !found->second.error.empty())
        wait.done(Error{EIO, found->second.error});
      else
        wait.done(Json{{"domain", record_.uuid},
                       {"host", host},
                       {"state", there ? xenstore::to_word(found->second.state) : "removed"}});
    }
  }
}

// ---- steps ----

void Domain::begin_member_step() {
  const Step step = membership_.step();
  // Not while nobody knows whether, and with whom, the domain goes on.
  if (loss_ != nullptr && step != Step::kNone) return;
  if (step == member_step_ && membership_.host() == member_host_) return;
  member_step_ = step;
  member_host_ = membership_.host();
  ++member_turn_;
  member_limit_.reset();
  orders_.clear();
  // From the loop: what a step finds out at once must not come in the middle of this one's answer.
  loop_.later([this, alive = std::weak_ptr<int>(alive_), turn = member_turn_] {
    if (!alive.expired() && turn == member_turn_) run_member_step();
  });
}

void Domain::run_member_step() {
  switch (member_step_) {
    case Step::kNone: return;
    case Step::kStart: return start_member();
    case Step::kConnect: return connect_member();
    case Step::kShare: return share_vcpus();
    case Step::kVacate: return vacate_member();
    case Step::kRole: return move_role();
    case Step::kHandOver: return hand_over();
    case Step::kDisconnect: return disconnect_member();
    case Step::kStop:
      // Lost while the others closed their connections to it.
      if (members_[static_cast<std::size_t>(index_of(member_host_))].gone) return end_member();
      return links_.stop_slice(member_host_, record_.uuid, "the host leaves");
    case Step::kUndo: return undo_member();
  }
}

void Domain::member_done() {
  membership_.done();
  members_changed();
}

void Domain::member_failed(const std::string& why) {
  log::warning("domain {}: host {}: {}", record_.name, member_host_, why);
  membership_.failed(why);
  members_changed();
}

// A step that can neither end nor be undone: the member stays as it is, with the reason.
void Domain::member_stuck(const std::string& why) {
  const int index = index_of(member_host_);
  log::error("domain {}: host {} cannot leave: {}", record_.name, member_host_, why);
  record_.members[static_cast<std::size_t>(index)].error = why;
  for (MemberWait& wait : take_waits(member_host_)) wait.done(Error{EIO, why});
  changed();
}

// Members that take part: neither gone nor on their way in.
std::vector<int> Domain::partners(const std::string& without) const {
  std::vector<int> all;
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (!members_[i].gone && !members_[i].joining && record_.members[i].host != without)
      all.push_back(static_cast<int>(i));
  return all;
}

std::vector<HostRecord> Domain::active_hosts(const std::string& without) const {
  std::vector<HostRecord> hosts;
  for (const int index : partners(without))
    hosts.push_back(spec_.placement.hosts[static_cast<std::size_t>(index)]);
  return hosts;
}

std::vector<std::string> Domain::vcpu_hosts() const {
  std::vector<std::string> on;
  for (const DomainVcpu& vcpu : record_.vcpus) on.push_back(vcpu.host);
  return on;
}

// One order to several slices; `then` gets the last answer, with all of them as `answers`, or the
// first error, when all have answered.
void Domain::order(const std::vector<int>& to, Json message, milliseconds limit, MoveDone then) {
  const std::uint64_t id = next_order_++;
  Order& order = orders_[id];
  order.waiting.insert(to.begin(), to.end());
  order.turn = member_turn_;
  order.then = std::move(then);
  if (limit != kNoLimit)
    order.limit = std::make_unique<Timer>(loop_, limit, [this, id] {
      const int index = *orders_[id].waiting.begin();
      finish_order(
          id, Error{ETIMEDOUT, fmt::format("host {} does not answer: see its xenspand's "
                                           "log",
                                           record_.members[static_cast<std::size_t>(index)].host)});
    });
  message["id"] = id;
  for (const int index : to)
    links_.send_to_slice(record_.members[static_cast<std::size_t>(index)].host, record_.uuid,
                         message);
  if (to.empty())
    order.limit = std::make_unique<Timer>(loop_, milliseconds(0),
                                          [this, id] { finish_order(id, Json::object()); });
}

void Domain::on_order_done(int index, const Json& event) {
  const auto found = orders_.find(number_or(event, "id", 0));
  if (found == orders_.end() || found->second.waiting.erase(index) == 0) return;
  found->second.answers[std::to_string(index)] = event;
  const std::string error = text_or(event, "error", "");
  if (!error.empty() && found->second.error.empty())
    found->second.error =
        fmt::format("host {}: {}", record_.members[static_cast<std::size_t>(index)].host, error);
  if (!found->second.waiting.empty()) return;
  if (found->second.error.empty()) {
    Json last = event;
    last["answers"] = std::move(found->second.answers);
    finish_order(found->first, std::move(last));
  } else {
    finish_order(found->first, Error{EIO, found->second.error});
  }
}

Json Domain::all_answers(const Json& answer) {
  const Json* all = object_field(answer, "answers");
  return all == nullptr ? Json::object() : *all;
}

void Domain::finish_order(std::uint64_t id, Result<Json> answer) {
  const auto found = orders_.find(id);
  if (found == orders_.end()) return;
  const Order order = std::move(found->second);
  orders_.erase(found);
  if (order.turn == member_turn_) order.then(std::move(answer));
}

// ---- joining ----

// A host keeps its number for good: it may come back.
void Domain::number_host(const std::string& host) {
  members_.emplace_back();
  members_.back().gone = true;  // no slice yet
  record_.members.emplace_back();
  record_.members.back().host = host;
  spec_.placement.hosts.emplace_back();
  spec_.placement.hosts.back().name = host;
}

void Domain::start_member() {
  const auto found = handler_.find_host(member_host_);
  if (!found) return member_failed(found.error().message);
  const int index = index_of(member_host_);
  const auto at = static_cast<std::size_t>(index);
  told_peers_.clear();
  // The host that had this number may still count: until the others agree that it does not. And
  // the end of its slice is not to be taken for the end of the new one's.
  if (handler_.votes().counts(record_.uuid, index) || (members_[at].lost && !members_[at].ended)) {
    member_limit_ = std::make_unique<Timer>(loop_, kLookAgain, [this] { start_member(); });
    return;
  }
  // Connections of the host that had this number before are refused.
  const std::uint32_t before = members_[at].incarnation;
  members_[at] = Member{};
  members_[at].incarnation = before + 1;
  members_[at].joining = true;
  record_.members[at] = DomainMember{};
  record_.members[at].host = member_host_;
  spec_.placement.hosts[at] = *found;
  changed();
  const milliseconds limit = spec_.kind == xenstore::Backend::kXen ? kXenJoinLimit : kJoinLimit;
  member_limit_ = std::make_unique<Timer>(loop_, limit, [this, limit] {
    member_failed(fmt::format("host {} did not get ready within {} s: see its xenspand's log",
                              member_host_, limit.count() / 1000));
  });
  if (spec_.kind != xenstore::Backend::kXen) return create_member_slice();
  handler_.prepare_slice(
      *this, member_host_,
      [this, alive = std::weak_ptr<int>(alive_), turn = member_turn_](const Status& prepared) {
        if (alive.expired() || turn != member_turn_) return;
        if (prepared) return create_member_slice();
        members_[static_cast<std::size_t>(index_of(member_host_))].gone = true;
        member_failed(prepared.error().message);
      });
}

void Domain::create_member_slice() {
  const int index = index_of(member_host_);
  const auto at = static_cast<std::size_t>(index);
  const Status created =
      links_.create_slice(member_host_, record_.uuid, spec_.user, join_message(index), {},
                          spec_.placement.memory_promised ? spec_.placement.memory : 0);
  if (created) return;
  members_[at].gone = true;
  member_failed(created.error().message);
}

Json Domain::join_message(int index) const {
  Json create = create_message(index);
  Json hosts = Json::array();
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const HostRecord& host = spec_.placement.hosts[i];
    // Numbers that are nobody's now have no name.
    const bool there = !members_[i].gone;
    hosts.push_back({{"name", there ? host.name : ""},
                     {"address", there ? host.address : ""},
                     {"incarnation", members_[i].incarnation}});
  }
  Json vcpus = Json::array();
  for (const DomainVcpu& vcpu : record_.vcpus)
    vcpus.push_back({{"host", index_of(vcpu.host)},
                     {"core", spec_.kind == xenstore::Backend::kXen ? -1 : vcpu.core}});
  create["hosts"] = hosts;
  create["vcpus"] = vcpus;
  create["home"] = home_index_;
  create["engine_home"] = engine_home_;
  if (record_.members[static_cast<std::size_t>(index)].host == membership_.heir())
    create["heir"] = true;
  create["first_hosts"] = first_hosts_;
  create["epoch"] = epoch_;
  if (Json standing = handler_.votes().standing(record_.uuid); !standing.is_null())
    create["quorum"] = std::move(standing);
  create["cores"] = spec_.placement.hosts[static_cast<std::size_t>(index)].cores;
  create["transport"] = xenstore::to_word(xenstore::Transport::kTcp);
  return create;
}

bool Domain::member_event(int index, const std::string& kind, const Json& event) {
  if (kind == "done") {
    on_order_done(index, event);
    return true;
  }
  Member& member = members_[static_cast<std::size_t>(index)];
  if (!member.joining) return false;
  if (kind == "listening") {
    const std::uint64_t port = number_or(event, "port", 0);
    member.port = static_cast<int>(std::min<std::uint64_t>(port, 65535));
    if (member_step_ == Step::kStart) member_done();
  } else if (kind == "ready") {
    member.ready = true;
    member_connected();
  } else if (kind == "failed") {
    return join_failed(index, text_or(event, "error", "its slice failed without saying why"));
  } else {
    return false;
  }
  return true;
}

// False: it is not on its way in, or manages pages already, and the whole domain is concerned.
bool Domain::join_failed(int index, const std::string& why) {
  if (phase_ != Phase::kRunning || !members_[static_cast<std::size_t>(index)].joining) return false;
  if (member_step_ == Step::kConnect && admitting_) return false;
  member_failed(why);
  return true;
}

void Domain::connect_member() {
  const auto at = static_cast<std::size_t>(index_of(member_host_));
  const milliseconds limit = spec_.kind == xenstore::Backend::kXen ? kXenJoinLimit : kJoinLimit;
  member_limit_ = std::make_unique<Timer>(loop_, limit, [this, limit] {
    member_failed(fmt::format("host {} did not get connected within {} s: see its xenspand's log",
                              member_host_, limit.count() / 1000));
  });
  Json ports = Json::array();
  for (const Member& member : members_) ports.push_back(member.gone ? 0 : member.port);
  links_.send_to_slice(member_host_, record_.uuid, {{"op", "peers"}, {"ports", ports}});
  told_peers_ = partners(member_host_);
  peers_connected_ = admitting_ = false;
  order(told_peers_,
        {{"op", "add-peer"},
         {"host", at},
         {"name", member_host_},
         {"address", spec_.placement.hosts[at].address},
         {"port", members_[at].port},
         {"incarnation", members_[at].incarnation}},
        kNoLimit, [this](const Result<Json>& added) {
          if (!added) return member_failed(added.error().message);
          peers_connected_ = true;
          member_connected();
        });
}

// All connections stand, seen from both ends: the others agree that it counts, and from then on its
// loss concerns everybody; it learns who manages what, and takes its share.
void Domain::member_connected() {
  const int index = index_of(member_host_);
  const auto at = static_cast<std::size_t>(index);
  if (member_step_ != Step::kConnect || !members_[at].ready || !peers_connected_ || admitting_)
    return;
  Votes& votes = handler_.votes();
  if (!votes.standing(record_.uuid).is_null() && !votes.counts(record_.uuid, index))
    return votes.join(record_.uuid, index);
  admitting_ = true;
  const auto failed_or = [this](auto next) {
    return [this, next](const Result<Json>& answer) {
      if (!answer) return member_failed(answer.error().message);
      next(*answer);
    };
  };
  std::vector<int> live = partners(member_host_);
  live.push_back(index);
  const auto joined = [this, at](const Json&) {
    members_[at].joining = false;
    if (record_.transport == xenstore::Transport::kNone)
      record_.transport = spec_.transport = xenstore::Transport::kTcp;
    member_done();
  };
  const auto learnt = [this, index, live, joined, failed_or](const Json&) {
    order({index}, {{"op", "take-slots"}, {"live", live}}, kNoLimit, failed_or(joined));
  };
  const auto told = [this, index, learnt, failed_or](const Json& answer) {
    order({index}, {{"op", "learn-slots"}, {"slots", text_or(answer, "slots", "")}}, kNoLimit,
          failed_or(learnt));
  };
  const auto admitted = [this, told, failed_or](const Json&) {
    order({home_index_}, {{"op", "slots"}}, kNoLimit, failed_or(told));
  };
  order(told_peers_, {{"op", "admit-peer"}, {"host", index}}, kNoLimit, failed_or(admitted));
}

void Domain::undo_member() {
  const auto at = static_cast<std::size_t>(index_of(member_host_));
  order(std::exchange(told_peers_, {}), {{"op", "remove-peer"}, {"host", at}}, kJoinLimit,
        [this, at](const Result<Json>&) {
          // What the others could not undo they had not done.
          if (members_[at].gone) return end_undo();
          links_.stop_slice(member_host_, record_.uuid, "the host could not join");
        });
}

void Domain::end_undo() {
  const auto at = static_cast<std::size_t>(index_of(member_host_));
  members_[at].joining = false;
  handler_.votes().leave(record_.uuid, static_cast<int>(at), members_[at].ended);
  member_done();
}

void Domain::share_vcpus() {
  const auto vcpu = next_for(member_host_, vcpu_hosts(), active_hosts(""));
  // Under Xen the first one stays on the home.
  if (!vcpu || (*vcpu == 0 && spec_.kind == xenstore::Backend::kXen)) return member_done();
  move_member_vcpu(*vcpu, member_host_);
}

// ---- leaving ----

void Domain::vacate_member() {
  for (std::size_t vcpu = record_.vcpus.size(); vcpu-- > 0;)
    if (record_.vcpus[vcpu].host == member_host_)
      return move_member_vcpu(static_cast<std::uint32_t>(vcpu),
                              heir_of(vcpu_hosts(), active_hosts(member_host_)));
  // Some of its threads may still be in calls that nothing interrupts.
  order({home_index_}, {{"op", "vacate"}, {"host", index_of(member_host_)}}, kNoLimit,
        [this](const Result<Json>& answer) {
          if (!answer) return member_failed(answer.error().message);
          const std::uint64_t threads = number_or(*answer, "threads", 0);
          if (threads == 0) return member_done();
          std::string& note =
              record_.members[static_cast<std::size_t>(index_of(member_host_))].error;
          if (note.empty()) {
            note = fmt::format(
                "{} of its threads are in calls that nothing interrupts: they "
                "leave when these return",
                threads);
            changed();
          }
          member_limit_ = std::make_unique<Timer>(loop_, kLookAgain, [this] { vacate_member(); });
        });
}

void Domain::move_member_vcpu(std::uint32_t vcpu, const std::string& host) {
  const HostRecord& record = spec_.placement.hosts[static_cast<std::size_t>(index_of(host))];
  std::vector<int> own(record.cores.size());
  for (std::size_t i = 0; i < own.size(); ++i)
    for (const DomainVcpu& each : record_.vcpus)
      if (each.host == host && each.core == record.cores[i]) ++own[i];
  migrate(vcpu, host, choose_core(record, own).core,
          [this, turn = member_turn_](const Result<Json>& moved) {
            if (turn != member_turn_) return;
            if (!moved) return member_failed(moved.error().message);
            run_member_step();
          });
}

void Domain::hand_over() {
  const std::vector<int> others = partners(member_host_);
  const int index = index_of(member_host_);
  order({index}, {{"op", "drain"}, {"heirs", others}}, kNoLimit,
        [this, index, others](const Result<Json>& drained) {
          if (!drained) return member_failed(drained.error().message);
          if (index == engine_home_) return home_leaves(others);
          tell_slots(others);
        });
}

// The others learn who manages now what this one did, and wait until nobody asks it any more.
void Domain::tell_slots(const std::vector<int>& others) {
  order({index_of(member_host_)}, {{"op", "slots"}}, kNoLimit,
        [this, others](const Result<Json>& told) {
          if (!told) return member_stuck(told.error().message);
          order(others, {{"op", "settle"}, {"slots", text_or(*told, "slots", "")}}, kNoLimit,
                [this](const Result<Json>& settled) {
                  if (!settled) return member_stuck(settled.error().message);
                  member_done();
                });
        });
}

void Domain::disconnect_member() {
  order(partners(member_host_), {{"op", "remove-peer"}, {"host", index_of(member_host_)}}, kNoLimit,
        [this](const Result<Json>& removed) {
          if (!removed) return member_stuck(removed.error().message);
          member_done();
        });
}

void Domain::end_member() {
  const int index = index_of(member_host_);
  const auto at = static_cast<std::size_t>(index);
  record_.members[at].counters.threads = 0;
  handler_.votes().leave(record_.uuid, index, members_[at].ended);
  member_done();
}

// Its process has ended, and that was wanted or concerns nobody else.
bool Domain::member_ended(int index, const std::string& cause) {
  Member& member = members_[static_cast<std::size_t>(index)];
  if (phase_ != Phase::kRunning) return false;
  if (member_host_ == record_.members[static_cast<std::size_t>(index)].host) {
    if (member_step_ == Step::kStop) {
      member_gone(index);
      end_member();
      return true;
    }
    // It has nothing any more that anybody could miss.
    if (member_step_ == Step::kDisconnect) {
      log::warning("domain {}: host {} has drained, and is lost: {}", record_.name, member_host_,
                   cause);
      member_gone(index);
      return true;
    }
    if (member_step_ == Step::kUndo) {
      member_gone(index);
      // Otherwise undo_member() waits for the others, and sees that it has gone.
      if (told_peers_.empty() && orders_.empty()) end_undo();
      return true;
    }
  }
  if (!member.joining) return false;
  member_gone(index);
  return join_failed(index, cause);
}

}  // namespace xenspan::daemon
