// The home's role moves to another host, because the home is drained (membership.h, kRole), and
// the old home leaves.
//
//   at the old home   every slice holds the program's calls; the home's slice gives what it keeps
//   to
//                     the heir's; all are told who the home is, and let the calls go on. The
//                     domain's hosts agree on the new home (dom0-daemon/quorum), each learns whom
//                     to obey next, and the heir's daemon gets what this one knows. It goes on from
//                     there.
//   at the new home   it claims the slices. Then the old home leaves as any other host, but for the
//                     pages that nobody has touched: it has them until it is forgotten as their
//                     home (dsm-rdma/membership.h, "home leaves").
//
// Until the heir's slice has taken the role everything can be undone. After that an error ends
// the domain, or leaves a home that works and whose old host has not left.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "dom0-daemon/daemon/bound_files.h"
#include "dom0-daemon/daemon/domain.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;
using Step = Membership::Step;

constexpr int kOwnFailure = 125;
constexpr milliseconds kNoLimit{0}, kTellLimit{10000}, kGiveLimit{60000}, kLookAgain{20};
// Each takes half a second while calls are under way.
constexpr int kMostLooks = 20;
// Of what is open at the home, in a refusal: the rest of the sentence has to fit, too.
constexpr std::size_t kMostNamesBytes = xenstore::kMaxText - 400;

}  // namespace

// ---- at the old home ----

// Of the active members, the one whose vCPUs' moves cost least.
Result<std::string> Domain::heir_of_home() const {
  const auto stays = [](const std::string& why) { return Error{EBUSY, why}; };
  if (spec_.kind == xenstore::Backend::kXen)
    return stays("its vCPU 0, its devices and what Xen itself writes into are bound to that host");
  if (spec_.transport == xenstore::Transport::kVerbs)
    return stays("its pages travel by RDMA, which no host can join");
  if (std::find(spec_.without.begin(), spec_.without.end(), "parallel") != spec_.without.end())
    return stays("it does without `parallel`, so that its slots cannot move");
  if (const auto bound = links_.bound_here(record_.uuid); !bound.empty())
    return stays(fmt::format("what the program has open there is bound to that host ({})",
                             first_names(bound, kMostNamesBytes)));
  const DomainMember* heir = nullptr;
  std::string why;
  for (const int index : partners(home())) {
    const DomainMember& member = record_.members[static_cast<std::size_t>(index)];
    if (member.state != xenstore::MemberState::kActive) continue;
    if (const auto found = handler_.find_host(member.host); !found)
      why = found.error().message;
    else if (heir == nullptr || member.vcpus < heir->vcpus)
      heir = &member;
  }
  if (heir == nullptr)
    return stays(fmt::format("no other active member could take its role{}{}",
                             why.empty() ? "" : ": ", why));
  return heir->host;
}

void Domain::move_role() {
  if (home_index_ != index_of(home())) return vote_for_heir();  // the slices have done their part
  // A vCPU that is on its way; no other sets out now.
  if (!moves_.empty()) {
    member_limit_ = std::make_unique<Timer>(loop_, kLookAgain, [this] { move_role(); });
    return;
  }
  log::info("domain {}: host {} is to be its home", record_.name, membership_.heir());
  hold_calls(0);
}

void Domain::hold_calls(int looks) {
  order(partners(""), {{"op", "hold"}}, kTellLimit, [this, looks](const Result<Json>& held) {
    if (!held) return role_stays(held.error().message);
    const Json answers = all_answers(*held);
    std::uint64_t calls = 0;
    std::string names;
    for (const auto& [index, answer] : answers.items()) {
      calls += number_or(answer, "calls", 0);
      for (const std::string& name :
           texts_field(answer, "names").value_or(std::vector<std::string>{}))
        names += (names.empty() ? "" : ", ") + name;
    }
    if (calls == 0) return give_home();
    if (looks + 1 < kMostLooks) return hold_calls(looks + 1);
    role_stays(fmt::format("{} of the program's threads {} in calls that nothing interrupts{}{}",
                           calls, calls == 1 ? "is" : "are", names.empty() ? "" : ": ", names));
  });
}

// Nothing has changed.
void Domain::role_stays(const std::string& why) {
  order(partners(""), {{"op", "release"}}, kTellLimit, [this, why](const Result<Json>& released) {
    if (!released) return fail(kOwnFailure, released.error().message);
    member_failed(fmt::format("its role as the home stays here: {}", why));
  });
}

void Domain::give_home() {
  const int heir = index_of(membership_.heir());
  order({home_index_}, {{"op", "give-home"}, {"to", heir}}, kGiveLimit,
        [this, heir](const Result<Json>& given) {
          if (!given) return role_stays(given.error().message);
          home_index_ = heir;
          late_signals_.clear();
          note_signals(*given);
          std::vector<int> others = partners(membership_.heir());
          tell_home(others);
        });
}

// The home itself last: it opens its lines to all others.
void Domain::tell_home(const std::vector<int>& others) {
  const Json message{{"op", "home"}, {"host", home_index_}};
  const auto failed = [this](const Error& error) {
    fail(kOwnFailure, fmt::format("the home could not move: {}", error.message));
  };
  order(others, message, kTellLimit, [this, message, failed](const Result<Json>& told) {
    if (!told) return failed(told.error());
    note_signals(*told);
    order({home_index_}, message, kTellLimit, [this, failed](const Result<Json>& begun) {
      if (!begun) return failed(begun.error());
      order(partners(""), {{"op", "release"}}, kTellLimit,
            [this, failed](const Result<Json>& released) {
              if (!released) return failed(released.error());
              for (const std::uint64_t signo : late_signals_)
                order_home({{"op", "signal"}, {"signo", signo}});
              vote_for_heir();
            });
    });
  });
}

// What the old home was sent while it gave its state away.
void Domain::note_signals(const Json& answer) {
  const Json answers = all_answers(answer);
  for (const auto& [index, told] : answers.items())
    for (const std::uint64_t signo :
         numbers_field(told, "signals").value_or(std::vector<std::uint64_t>{}))
      late_signals_.push_back(signo);
}

// The second vote goes with the role: of two members, the one that stays has to decide alone.
void Domain::vote_for_heir() {
  Votes& votes = handler_.votes();
  const int now = votes.home_of(record_.uuid);
  if (now < 0 || now == home_index_) {
    for (const int index : partners(""))
      heir_unknown_to_.insert(record_.members[static_cast<std::size_t>(index)].host);
    member_limit_ = std::make_unique<Timer>(loop_, kTellLimit, [this] {
      member_stuck(fmt::format("host {} does not answer: see its xenspand's log",
                               *heir_unknown_to_.begin()));
    });
    for (const std::string& host : std::set<std::string>(heir_unknown_to_))
      links_.name_heir(host, record_.uuid, membership_.heir());
    return;
  }
  votes.give_home(record_.uuid, home_index_);
  member_limit_ = std::make_unique<Timer>(loop_, kLookAgain, [this] { vote_for_heir(); });
}

void Domain::heir_known(const std::string& host) {
  if (member_step_ != Step::kRole || heir_unknown_to_.erase(host) == 0) return;
  if (heir_unknown_to_.empty()) give_away();
}

void Domain::give_away() {
  loop_.later([timer = std::shared_ptr<Timer>(std::move(member_limit_))] {});
  const std::string heir = membership_.heir();
  handler_.give_away(
      *this, heir, to_json(role_state()),
      [this, heir, alive = std::weak_ptr<int>(alive_), turn = member_turn_](const Status& done) {
        if (alive.expired() || turn != member_turn_) return;
        if (!done) return member_stuck(done.error().message);
        log::info("domain {}: host {} is its home now", record_.name, heir);
        phase_ = Phase::kGiven;
        ++member_turn_;
        membership_.close(
            fmt::format("host {} is the home of domain {} now: ask there", heir, record_.name));
        orders_.clear();
        tell_answers();
        const Error moved{EAGAIN,
                          fmt::format("the home of domain {} has moved: try again", record_.name)};
        for (auto& [id, request] : std::exchange(stats_, {})) request.done(moved);
        for (auto& [id, move] : std::exchange(moves_, {})) move.done(moved);
        record_.former_homes.push_back(record_.home);
        record_.home = heir;
        std::vector<std::pair<std::string, MoveDone>> waits;
        for (MemberWait& wait : std::exchange(member_waits_, {}))
          waits.emplace_back(wait.host, std::move(wait.done));
        handler_.given_away(*this, heir, std::move(waits));
      });
}

RoleState Domain::role_state() const {
  RoleState state;
  state.record = record_;
  state.record.former_homes.push_back(record_.home);
  state.record.home = membership_.heir();
  state.user = spec_.user;
  for (std::size_t i = 0; i < members_.size(); ++i)
    state.numbers.push_back({spec_.placement.hosts[i], record_.members[i], members_[i].port,
                             members_[i].gone, members_[i].ended, members_[i].lost,
                             members_[i].incarnation});
  state.secret = secret_;
  state.memory_promised = spec_.placement.memory_promised;
  state.stats = spec_.stats;
  state.stats_host = spec_.stats_host;
  state.prefetch = spec_.prefetch;
  state.without = spec_.without;
  state.lost_after = static_cast<std::uint64_t>(spec_.lost_after.count());
  state.start_within = static_cast<std::uint64_t>(spec_.start_within.count());
  state.first_hosts = first_hosts_;
  state.epoch = epoch_;
  state.home = home_index_;
  state.engine_home = engine_home_;
  state.leaves = home();
  state.forget = membership_.forgets();
  return state;
}

// ---- at the new home ----

namespace {

DomainSpec spec_of(const RoleState& state) {
  DomainSpec spec;
  spec.uuid = state.record.uuid;
  spec.name = state.record.name;
  spec.user = state.user;
  for (const RoleState::Number& number : state.numbers) spec.placement.hosts.push_back(number.host);
  spec.placement.memory = state.record.memory;
  spec.placement.memory_promised = state.memory_promised;
  spec.start_within = milliseconds(state.start_within);
  spec.stats = state.stats;
  spec.prefetch = state.prefetch;
  spec.without = state.without;
  spec.transport = state.record.transport;
  spec.policy = state.record.policy;
  spec.lost_after = milliseconds(state.lost_after);
  spec.stats_host = state.stats_host;
  return spec;
}

}  // namespace

Domain::Domain(EventLoop& loop, SliceLinks& links, Handler& handler, const RoleState& state)
    : Domain(loop, links, handler, spec_of(state), state.first_hosts) {
  secret_ = state.secret;
  record_ = state.record;
  record_.members.clear();
  for (std::size_t i = 0; i < state.numbers.size(); ++i) {
    const RoleState::Number& number = state.numbers[i];
    record_.members.push_back(number.member);
    members_[i] = {number.port,  true,        number.gone, "",
                   number.ended, number.lost, false,       number.incarnation};
  }
  epoch_ = state.epoch;
  home_index_ = state.home;
  engine_home_ = state.engine_home;
  phase_ = Phase::kRunning;
  std::map<std::string, xenstore::MemberState> states;
  for (const DomainMember& member : record_.members)
    if (!member.forgotten) states[member.host] = member.state;
  membership_ = Membership(record_.name, record_.home, {});
  membership_.resume(std::move(states), state.leaves, state.forget);
}

void Domain::take_role() {
  log::info("domain {} ({}): this host is its home now", record_.name, record_.uuid);
  for (const int index : partners(""))
    links_.claim_slice(record_.members[static_cast<std::size_t>(index)].host, record_.uuid);
  open_members();
}

// Its pages have gone once. What is left are those that nobody has touched, and copies of such that
// others have read.
void Domain::home_leaves(const std::vector<int>& others) {
  const int index = index_of(member_host_);
  const auto stuck_or = [this](auto next) {
    return [this, next](const Result<Json>& answer) {
      if (!answer) return member_stuck(answer.error().message);
      next(*answer);
    };
  };
  const auto drained = [this, others](const Json&) {
    engine_home_ = -1;
    tell_slots(others);
  };
  const auto forgotten_there = [this, index, others, drained, stuck_or](const Json&) {
    order({index}, {{"op", "drain"}, {"heirs", others}}, kNoLimit, stuck_or(drained));
  };
  const auto settled = [this, index, forgotten_there, stuck_or](const Json&) {
    order({index}, {{"op", "forget-home"}}, kNoLimit, stuck_or(forgotten_there));
  };
  const auto told = [this, others, settled, stuck_or](const Json& answer) {
    order(others, {{"op", "settle"}, {"slots", text_or(answer, "slots", "")}}, kNoLimit,
          stuck_or(settled));
  };
  const auto forgotten = [this, index, told, stuck_or](const Json&) {
    order({index}, {{"op", "slots"}}, kNoLimit, stuck_or(told));
  };
  order(others, {{"op", "forget-home"}}, kNoLimit, stuck_or(forgotten));
}

}  // namespace xenspan::daemon
