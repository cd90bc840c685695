// A domain that loses a host (domain_loss.h), up to its end. domain_survival.cc: it goes on.
#include "dom0-daemon/daemon/domain_loss.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "dom0-daemon/daemon/domain.h"
#include "dom0-daemon/daemon/leases.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;

constexpr int kOwnFailure = 125;
constexpr milliseconds kTellLimit{2000};  // for holdings, and for names

}  // namespace

// The engine's words for it.
int Domain::lost_host_in(const std::string& error) const {
  for (std::size_t i = 0; i < record_.members.size(); ++i)
    if (error.starts_with(fmt::format("host {} is lost: ", record_.members[i].host)))
      return static_cast<int>(i);
  return -1;
}

bool Domain::lose(int index, const std::string& cause, DomainLoss::Source source) {
  // Before the program runs there is nothing to tell, and without the home nobody to tell it.
  // Nor without who has the pages that nobody has touched.
  if (index == home_index_ || index == engine_home_ || phase_ < Phase::kRunning ||
      phase_ >= Phase::kExited)
    return false;
  if (spec_.kind == xenstore::Backend::kXen) return false;
  if (members_[static_cast<std::size_t>(index)].lost) return true;
  const bool first = loss_ == nullptr || loss_->hosts.empty();
  if (loss_ == nullptr) begin_loss();
  DomainLoss& loss = *loss_;
  const std::string& host = record_.members[static_cast<std::size_t>(index)].host;
  if (loss.rebuilding) {
    if (is_lost(index)) return true;
    loss.hosts.push_back(index);
    if (!loss.stops) rebuild_failed(fmt::format("host {} was lost, too: {}", host, cause));
    return true;
  }
  if (first || source > loss.source) {
    loss.story.cause = cause;
    loss.source = source;
  }
  loss.certain =
      loss.certain || source == DomainLoss::Source::kEnd || source == DomainLoss::Source::kAgreed;
  if (first) {
    log::warning("domain {} ({}): lost host {}: {}", record_.name, record_.uuid, host, cause);
    wait_for_evidence();
  }
  const bool news = !is_lost(index);
  if (news) loss.hosts.push_back(index);
  // A slice that tells it as the reason why it has stopped cannot go on.
  if (source != DomainLoss::Source::kSlice && may_go_on()) {
    // Its process is known to have ended: nobody has to wait for it.
    if (source == DomainLoss::Source::kEnd) handler_.votes().leave(record_.uuid, index, true);
    return true;
  }
  if (!loss.stops)
    stop_for_loss();
  else if (news)
    ask_holdings();
  else
    go_on_with_loss();
  return true;
}

void Domain::begin_loss() {
  loss_ = std::make_unique<DomainLoss>();
  wait_for_evidence();
}

// What nobody agrees on ends the domain all the same.
void Domain::wait_for_evidence() {
  loss_->limit = std::make_unique<Timer>(loop_, spec_.lost_after * 3 / 2 + kTellLimit,
                                         [this] { loss_overdue(); });
}

bool Domain::is_lost(int index) const {
  return loss_ != nullptr &&
         std::find(loss_->hosts.begin(), loss_->hosts.end(), index) != loss_->hosts.end();
}

// A slice has lost its connection to another one, and waits for what becomes of the domain.
void Domain::on_peer_lost(int index, const Json& event) {
  const std::uint64_t peer = number_or(event, "host", members_.size());
  if (peer >= members_.size() || peer == static_cast<std::uint64_t>(home_index_) ||
      phase_ >= Phase::kExited)
    return;
  const auto host = static_cast<int>(peer);
  const std::string& name = record_.members[peer].host;
  const std::string why = text_or(event, "error", "its connection ended");
  // One that leaves, or whose join is undone, is missed by nobody.
  const bool leaves = member_host_ == name && (member_step_ == Membership::Step::kDisconnect ||
                                               member_step_ == Membership::Step::kStop ||
                                               member_step_ == Membership::Step::kUndo);
  if (leaves || members_[peer].lost || is_lost(host) || is_lost(index)) return;
  if (phase_ < Phase::kRunning || spec_.kind == xenstore::Backend::kXen)
    return on_failed(index, {{"error", fmt::format("host {} is lost: {}", name, why)}});
  note_unreached({index, host, why});
}

void Domain::note_unreached(DomainLoss::Unreached unreached) {
  if (loss_ == nullptr) begin_loss();
  if (loss_->stops) return;
  log::warning("domain {} ({}): host {} does not reach host {} any more: {}", record_.name,
               record_.uuid, record_.members[static_cast<std::size_t>(unreached.by)].host,
               record_.members[static_cast<std::size_t>(unreached.host)].host, unreached.why);
  loss_->unreached.push_back(std::move(unreached));
  if (loss_->rebuilding) wait_for_evidence();
}

// What no host that is lost, or has left, explains.
std::vector<DomainLoss::Unreached> Domain::unexplained() const {
  std::vector<DomainLoss::Unreached> left = loss_->unreached;
  std::erase_if(left, [this](const DomainLoss::Unreached& each) {
    const auto over = [this](int index) {
      return is_lost(index) || members_[static_cast<std::size_t>(index)].gone;
    };
    return over(each.by) || over(each.host);
  });
  return left;
}

void Domain::stop_for_loss() {
  loss_->stops = true;
  log::warning("domain {} ({}): stops: {}", record_.name, record_.uuid, loss_->story.cause);
  send_all({{"op", "halt"}, {"cause", loss_->story.cause}});
  ask_holdings();
}

// Nobody agrees, or somebody does not tell what it holds.
void Domain::loss_overdue() {
  if (loss_ == nullptr || loss_->stops) return conclude_loss({});
  // The timer that calls.
  loop_.later([timer = std::shared_ptr<Timer>(std::move(loss_->limit))] {});
  DomainLoss& loss = *loss_;
  for (const DomainLoss::Unreached& each : unexplained()) {
    const std::string cause =
        fmt::format("host {} does not reach it any more: {}",
                    record_.members[static_cast<std::size_t>(each.by)].host, each.why);
    if (loss.rebuilding) {
      lose(each.host, cause, DomainLoss::Source::kSlice);
      return;
    }
    if (is_lost(each.host)) continue;
    if (loss.hosts.empty()) loss.story.cause = cause;
    loss.hosts.push_back(each.host);
  }
  if (loss.hosts.empty()) {
    // Those that were not reached have left.
    loop_.later([gone = std::shared_ptr<DomainLoss>(std::move(loss_))] {});
    return members_changed();
  }
  if (loss.rebuilding) return limit_rebuild();
  loss.certain = true;
  stop_for_loss();
  go_on_with_loss();
}

void Domain::agreed(const Agreed& agreed) {
  // The host that joins counts now.
  if (std::find(agreed.by.begin(), agreed.by.end(), member_host_) != agreed.by.end())
    member_connected();
  std::vector<std::string> lost = agreed.gone;
  std::erase_if(lost, [this](const std::string& host) { return !concerns(host); });
  for (const std::string& host : std::exchange(lost, {})) {
    const bool joins = members_[static_cast<std::size_t>(index_of(host))].joining;
    // Not admitted by the slices yet, or no more.
    if (!joins || (admitting_ && member_step_ == Membership::Step::kConnect))
      lost.push_back(host);
    else
      join_failed(index_of(host), fmt::format("lost host {}: no sign of life", host));
  }
  if (lost.empty()) return;
  if (loss_ != nullptr && !loss_->rebuilding) {
    loss_->story.epoch = agreed.epoch;
    loss_->story.by = agreed.by;
    // A slice that saw no more of another may have been the lost one itself.
    if (loss_->source == DomainLoss::Source::kSlice) loss_->hosts.clear();
  }
  for (const std::string& host : lost) {
    const int index = index_of(host);
    if (!lose(index, "no sign of life", DomainLoss::Source::kAgreed)) {
      fail(kOwnFailure,
           fmt::format("lost host {} (epoch {}): no sign of life", host, agreed.epoch));
      continue;
    }
    if (loss_ == nullptr) continue;  // the domain has ended from it
    loss_->story.epoch = agreed.epoch;
    loss_->story.by = agreed.by;
    loss_->agreed.insert(index);
  }
  if (loss_ == nullptr || loss_->stops || loss_->rebuilding) return;
  // Hosts that do not reach each other cannot go on together.
  if (!unexplained().empty()) return;
  if (std::all_of(loss_->hosts.begin(), loss_->hosts.end(),
                  [this](int index) { return loss_->agreed.contains(index); }))
    rebuild();
}

// Not one that has left, or that could not join: the domain goes on without it.
bool Domain::concerns(const std::string& host) const {
  const int index = index_of(host);
  if (index < 0) return false;
  const auto at = static_cast<std::size_t>(index);
  if (members_[at].lost) return false;
  return is_lost(index) || (!members_[at].gone && !record_.members[at].forgotten);
}

void Domain::ask_holdings() {
  DomainLoss& loss = *loss_;
  loss.id = next_stats_++;
  loss.naming = false;
  loss.holdings.clear();
  loss.waiting.clear();
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].gone || members_[i].joining || is_lost(static_cast<int>(i))) continue;
    loss.waiting.push_back(record_.members[i].host);
    links_.send_to_slice(record_.members[i].host, record_.uuid,
                         {{"op", "holdings"}, {"id", loss.id}, {"lost", loss.hosts}});
  }
  loss.expected = loss.waiting.size();
}

void Domain::on_holdings(int index, const Json& event) {
  if (loss_ == nullptr || number_or(event, "id", 0) != loss_->id) return;
  const std::string& host = record_.members[static_cast<std::size_t>(index)].host;
  if (std::erase(loss_->waiting, host) == 0) return;
  loss_->holdings[host] = event;
  go_on_with_loss();
}

void Domain::go_on_with_loss() {
  DomainLoss& loss = *loss_;
  if (!loss.certain || loss.naming) return;
  if (!loss.waiting.empty()) {
    loss.limit = std::make_unique<Timer>(loop_, kTellLimit, [this] { conclude_loss({}); });
    return;
  }
  loss.naming = true;
  loss.limit = std::make_unique<Timer>(loop_, kTellLimit, [this] { conclude_loss({}); });
  const auto bytes = bytes_to_name(lost_pages(loss.holdings, pages_home(), loss.expected));
  order_home({{"op", "resolve"}, {"id", loss.id}, {"bytes", bytes}});
}

// The members that are lost count as gone by the time their daemons or connections say so.
void Domain::conclude_loss(const std::vector<std::string>& names) {
  if (loss_ == nullptr || phase_ >= Phase::kExited) return;
  // Its timer may be what calls.
  const std::shared_ptr<DomainLoss> loss(std::move(loss_));
  loop_.later([loss] {});
  for (const int index : loss->hosts)
    loss->story.hosts.push_back(record_.members[static_cast<std::size_t>(index)].host);
  const std::string sentence = loss_sentence(
      loss->story, record_, lost_pages(loss->holdings, pages_home(), loss->expected), names);
  for (const int index : loss->hosts) {
    set_member_state(index, xenstore::MemberState::kFailed);
    record_.members[static_cast<std::size_t>(index)].error = sentence;
  }
  fail(kOwnFailure, sentence);
}

}  // namespace xenspan::daemon
