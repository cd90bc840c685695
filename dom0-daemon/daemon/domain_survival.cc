// A host has died that ran no vCPU, and the domain goes on without it: the plan of
// dsm-rdma/survival.h, carried out by the slices that are left (the orders are in
// dom0-daemon/slice/control.md).
//
// It begins when the epoch without the host has begun: then the host does not run any more. Another
// loss, an error or too much time before it is over ends the domain: there is no way back.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "dom0-daemon/daemon/domain.h"
#include "dom0-daemon/daemon/quiet.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;
using Step = Membership::Step;

constexpr milliseconds kRebuildLimit{60000};
constexpr milliseconds kLookAgain{2};
constexpr milliseconds kNoLimit{0};

}  // namespace

// What is known now. The rest turns out while the directory is made.
bool Domain::may_go_on() const {
  const DomainLoss& loss = *loss_;
  // Which pages nobody has touched would not be known.
  if (engine_home_ < 0) return false;
  if (loss.stops || loss.rebuilding || record_.transport != xenstore::Transport::kTcp ||
      std::find(spec_.without.begin(), spec_.without.end(), "parallel") != spec_.without.end())
    return false;
  for (const int index : loss.hosts) {
    const std::string& host = record_.members[static_cast<std::size_t>(index)].host;
    if (members_[static_cast<std::size_t>(index)].joining) return false;
    for (const DomainVcpu& vcpu : record_.vcpus)
      if (vcpu.host == host) return false;
    for (const auto& [id, move] : moves_)
      if (move.host == index) return false;
  }
  // A change of another member would wait for the one that died.
  if (member_step_ == Step::kNone) return true;
  return is_lost(index_of(member_host_)) &&
         (member_step_ == Step::kShare || member_step_ == Step::kVacate ||
          member_step_ == Step::kHandOver);
}

void Domain::rebuild() {
  if (!may_go_on()) {
    stop_for_loss();
    return go_on_with_loss();
  }
  DomainLoss& loss = *loss_;
  log::info("domain {}: epoch {}: its pages are looked for without the lost hosts", record_.name,
            loss.story.epoch);
  loss.rebuilding = true;
  limit_rebuild();
  // Nobody carries out a change of theirs any more.
  if (member_step_ != Step::kNone) {
    ++member_turn_;
    member_limit_.reset();
    orders_.clear();
    member_step_ = Step::kNone;
    member_host_.clear();
  }
  for (const int index : loss.hosts) {
    Member& member = members_[static_cast<std::size_t>(index)];
    const std::string& host = record_.members[static_cast<std::size_t>(index)].host;
    // It has fenced itself; then its daemon says so. Unless the connection to that has ended.
    if (member.gone)
      member.ended = true;
    else
      links_.stop_slice(host, record_.uuid, "the domain goes on without this host");
    member.lost = true;
    member_gone(index);
  }
  leave_no_thread(0);
}

void Domain::limit_rebuild() {
  loss_->limit = std::make_unique<Timer>(loop_, kRebuildLimit, [this] {
    rebuild_failed(
        fmt::format("looking for the pages took longer than {} s", kRebuildLimit.count() / 1000));
  });
}

void Domain::rebuild_step(const std::vector<int>& to, Json message,
                          std::function<void(const Json& answer)> then) {
  order(to, std::move(message), kNoLimit,
        [this, then = std::move(then)](const Result<Json>& answer) {
          if (loss_ == nullptr) return;
          if (!answer) return rebuild_failed(answer.error().message);
          then(*answer);
        });
}

void Domain::rebuild_failed(const std::string& why) {
  DomainLoss& loss = *loss_;
  loss.stops = true;
  loss.story.cause += fmt::format("; the others could not go on without it: {}", why);
  loss.holdings.clear();
  loss.expected = 1;  // what it held is not known any more
  conclude_loss({});
}

// A thread may have stayed in a call when its vCPU went.
void Domain::leave_no_thread(std::size_t next) {
  if (next == loss_->hosts.size()) return freeze_the_rest();
  rebuild_step({home_index_}, {{"op", "vacate"}, {"host", loss_->hosts[next]}},
               [this, next](const Json& answer) {
                 const std::uint64_t threads = number_or(answer, "threads", 0);
                 if (threads == 0) return leave_no_thread(next + 1);
                 rebuild_failed(fmt::format("{} of the program's threads {} still there", threads,
                                            threads == 1 ? "was" : "were"));
               });
}

void Domain::freeze_the_rest() {
  rebuild_step(partners(""), {{"op", "freeze"}, {"lost", loss_->hosts}}, [this](const Json&) {
    when_quiet([this] {
      rebuild_step({home_index_}, {{"op", "slots"}},
                   [this](const Json& answer) { make_directory(text_or(answer, "slots", "")); });
    });
  });
}

// Twice the same, and all that was sent has come.
void Domain::when_quiet(std::function<void()> then) {
  rebuild_step(partners(""), {{"op", "traffic"}},
               [this, then = std::move(then)](const Json& answer) {
                 Json now = Json::object();
                 const Json all = all_answers(answer);
                 for (const auto& [index, told] : all.items()) {
                   const Json* traffic = object_field(told, "traffic");
                   now[index] = traffic == nullptr ? Json() : *traffic;
                 }
                 const bool same = now == loss_->traffic;
                 loss_->traffic = std::move(now);
                 if (same && is_quiet(loss_->traffic)) {
                   loss_->traffic = nullptr;
                   return then();
                 }
                 loss_->again =
                     std::make_unique<Timer>(loop_, kLookAgain, [this, then] { when_quiet(then); });
               });
}

void Domain::make_directory(const std::string& slots) {
  const std::vector<int> rest = partners("");
  rebuild_step(rest,
               {{"op", "forget"}, {"slots", slots}, {"live", rest}, {"epoch", loss_->story.epoch}},
               [this, rest](const Json&) {
                 rebuild_step(rest, {{"op", "claim"}},
                              [this](const Json&) { when_quiet([this] { judge_pages(); }); });
               });
}

void Domain::judge_pages() {
  const std::vector<int> rest = partners("");
  rebuild_step(rest, {{"op", "judge"}}, [this, rest](const Json& answer) {
    DomainLoss& loss = *loss_;
    const Json all = all_answers(answer);
    for (const auto& [index, told] : all.items()) loss.holdings[index] = told;
    loss.expected = rest.size();
    if (!lost_pages(loss.holdings, pages_home(), loss.expected).alone.empty()) {
      // The program's memory has a hole.
      loss.stops = true;
      loss.id = next_stats_++;
      send_all({{"op", "halt"}, {"cause", loss.story.cause}});
      return go_on_with_loss();
    }
    when_quiet([this, rest] {
      rebuild_step(rest, {{"op", "abandon"}}, [this, rest](const Json&) {
        rebuild_step(rest, {{"op", "thaw"}}, [this](const Json&) { go_on_without(); });
      });
    });
  });
}

void Domain::go_on_without() {
  std::vector<DomainLoss::Unreached> open = unexplained();
  // Its timers may be what calls.
  const std::shared_ptr<DomainLoss> loss(std::move(loss_));
  loop_.later([loss] {});
  for (const int index : loss->hosts)
    loss->story.hosts.push_back(record_.members[static_cast<std::size_t>(index)].host);
  const std::string sentence = survived_sentence(loss->story);
  log::warning("domain {} ({}): {}", record_.name, record_.uuid, sentence);
  epoch_ = loss->story.epoch;
  for (const int index : loss->hosts) {
    DomainMember& member = record_.members[static_cast<std::size_t>(index)];
    member.vcpus = 0;
    member.counters.threads = 0;
    membership_.lost(member.host, sentence);
  }
  if (!open.empty()) {
    begin_loss();
    loss_->unreached = std::move(open);
  }
  members_changed();
}

}  // namespace xenspan::daemon
