#include "dom0-daemon/daemon/membership.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "xenstore-schema/paths.h"

namespace xenspan::daemon {

Membership::Membership(std::string domain, std::string home, const std::vector<std::string>& hosts)
    : domain_(std::move(domain)), home_(std::move(home)) {
  for (const std::string& host : hosts) members_[host] = Member{};
}

const Membership::Member* Membership::find(const std::string& host) const {
  const auto found = members_.find(host);
  return found == members_.end() ? nullptr : &found->second;
}

bool Membership::busy(const std::string& host) const {
  const bool role = !heir_.empty() && (host == home_ || host == heir_);
  return (step_ != Step::kNone && (host_ == host || role)) ||
         std::any_of(waiting_.begin(), waiting_.end(),
                     [&](const Waiting& each) { return each.host == host; });
}

void Membership::answer(const std::string& host, Request request, Status status) {
  if (const auto member = members_.find(host); member != members_.end())
    member->second.error = status ? "" : status.error().message;
  answers_.push_back({host, request, std::move(status)});
}

void Membership::refuse(const std::string& host, Request request, const std::string& why) {
  answer(host, request, Error{EINVAL, why});
}

void Membership::ask(const std::string& host, const std::string& word) {
  const auto request = xenstore::from_word<Request>(word);
  if (!request || *request == Request::kNone)
    return refuse(host, Request::kNone,
                  fmt::format("\"{}\" is refused: a member's request is add, drain or remove",
                              xenstore::encode_text(word.substr(0, 80))));
  // What was written over one that waits replaces it.
  withdraw(host);
  if (!closed_.empty()) return refuse(host, *request, closed_);
  if (joins_under_way(host, *request)) return;
  waiting_.push_back({host, *request});
  take_up_next();
}

// A request for the very change that is under way, or one that turns it round.
bool Membership::joins_under_way(const std::string& host, Request request) {
  if (!heir_.empty()) {
    if (host != home_ || request == Request::kAdd) return false;
    forget_ = forget_ || request == Request::kRemove;
    answer(host, request, {});
    return true;
  }
  if (step_ == Step::kNone || host_ != host) return false;
  const bool joins = step_ == Step::kStart || step_ == Step::kConnect || step_ == Step::kShare;
  const bool leaves = step_ >= Step::kVacate && step_ <= Step::kStop;
  if (request == Request::kAdd && joins) {
    answer(host, request, {});
    return true;
  }
  if (request != Request::kAdd && leaves) {
    forget_ = forget_ || request == Request::kRemove;
    answer(host, request, {});
    return true;
  }
  // Nothing but vCPUs has gone yet: it can stay.
  if (request == Request::kAdd && step_ == Step::kVacate) {
    step_ = Step::kShare;
    forget_ = false;
    members_[host].state = State::kActive;
    answer(host, request, {});
    return true;
  }
  if (request != Request::kAdd && step_ == Step::kShare) {
    step_ = Step::kNone;
    waiting_.push_front({host, request});
    take_up_next();
    return true;
  }
  return false;
}

bool Membership::withdraw(const std::string& host) {
  return std::erase_if(waiting_, [&](const Waiting& each) { return each.host == host; }) != 0;
}

void Membership::open(MayJoin may_join, HeirOfHome heir_of_home) {
  may_join_ = std::move(may_join);
  heir_of_home_ = std::move(heir_of_home);
  take_up_next();
}

void Membership::resume(std::map<std::string, State> states, const std::string& leaves,
                        bool forget) {
  members_.clear();
  for (const auto& [host, state] : states) members_[host].state = state;
  members_[leaves].state = State::kDraining;
  host_ = leaves;
  forget_ = forget;
  step_ = Step::kHandOver;
}

void Membership::close(const std::string& why) {
  closed_ = why;
  may_join_ = nullptr;
  heir_of_home_ = nullptr;
  step_ = Step::kNone;
  heir_.clear();
  for (const Waiting& each : std::exchange(waiting_, {})) refuse(each.host, each.request, why);
}

void Membership::take_up_next() {
  while (may_join_ && step_ == Step::kNone && !waiting_.empty()) {
    const Waiting next = waiting_.front();
    waiting_.pop_front();
    take_up(next);
  }
}

void Membership::take_up(const Waiting& next) {
  if (next.request == Request::kAdd) return add(next);
  leave(next);
}

void Membership::add(const Waiting& next) {
  const Member* member = find(next.host);
  if (member != nullptr && member->state == State::kActive)
    return refuse(next.host, next.request,
                  fmt::format("add is refused: host {} is a member of domain {} already", next.host,
                              domain_));
  if (Status may = may_join_(next.host); !may)
    return refuse(next.host, next.request, "add is refused: " + may.error().message);
  members_[next.host] = Member{State::kJoining, ""};
  host_ = next.host;
  forget_ = false;
  step_ = Step::kStart;
  answer(next.host, next.request, {});
}

bool Membership::last_host(const std::string& host) const {
  return std::none_of(members_.begin(), members_.end(), [&](const auto& each) {
    return each.first != host && each.second.state == State::kActive;
  });
}

void Membership::leave(const Waiting& next) {
  const bool remove = next.request == Request::kRemove;
  const std::string word(xenstore::to_word(next.request));
  const Member* member = find(next.host);
  if (member == nullptr)
    return refuse(next.host, next.request,
                  fmt::format("{} is refused: host {} is not a member of domain {}", word,
                              next.host, domain_));
  if (member->state == State::kLeft || member->state == State::kFailed) {
    if (!remove)
      return refuse(
          next.host, next.request,
          fmt::format("drain is refused: host {} {} domain {}: remove takes it off the "
                      "list of members",
                      next.host, member->state == State::kLeft ? "has left" : "has failed in",
                      domain_));
    answer(next.host, next.request, {});
    members_.erase(next.host);
    forgotten_.push_back(next.host);
    return;
  }
  if (last_host(next.host))
    return refuse(next.host, next.request,
                  fmt::format("{} is refused: host {} is the last host of domain {}: add another "
                              "host, or `xenspan destroy` the domain",
                              word, next.host, domain_));
  if (next.host == home_) return leave_home(next);
  members_[next.host].state = State::kDraining;
  host_ = next.host;
  forget_ = remove;
  step_ = Step::kVacate;
  answer(next.host, next.request, {});
}

// What runs on the heir is confined to its memory: it leaves, and joins anew as one that is not.
void Membership::leave_home(const Waiting& next) {
  const auto heir = heir_of_home_ ? heir_of_home_() : Error{EINVAL, "it cannot move"};
  if (!heir)
    return refuse(
        next.host, next.request,
        fmt::format("{} is refused: host {} is the home of domain {}, and {}: `xenspan "
                    "migrate` moves its vCPUs",
                    xenstore::to_word(next.request), next.host, domain_, heir.error().message));
  members_[home_].state = members_[*heir].state = State::kDraining;
  host_ = heir_ = *heir;
  forget_ = next.request == Request::kRemove;
  step_ = Step::kVacate;
  answer(next.host, next.request, {});
}

// Its role stays where it is.
void Membership::keep_home(const std::string& why) {
  const bool vacated = host_ == home_;
  members_[home_] = Member{State::kActive, why};
  heir_.clear();
  if (!vacated) return finish();
  // Its vCPUs have gone, or some.
  step_ = Step::kShare;
}

void Membership::done() {
  const bool heirs = !heir_.empty() && host_ == heir_;
  switch (step_) {
    case Step::kNone: return;
    case Step::kStart: step_ = Step::kConnect; return;
    case Step::kConnect:
      members_[host_].state = State::kActive;
      step_ = Step::kShare;
      if (!heirs) return;
      host_ = home_;
      step_ = Step::kVacate;
      return;
    case Step::kVacate: step_ = host_ == home_ ? Step::kRole : Step::kHandOver; return;
    case Step::kRole:
      home_ = std::exchange(heir_, "");
      step_ = Step::kHandOver;
      return;
    case Step::kHandOver: step_ = Step::kDisconnect; return;
    case Step::kDisconnect: step_ = Step::kStop; return;
    case Step::kShare: return finish();
    case Step::kStop:
      if (heirs) {
        members_[host_] = Member{State::kJoining, ""};
        step_ = Step::kStart;
        return;
      }
      members_[host_].state = State::kLeft;
      if (forget_) {
        members_.erase(host_);
        forgotten_.push_back(host_);
      }
      return finish();
    case Step::kUndo:
      members_[host_] = Member{State::kFailed, undo_cause_};
      return heirs ? keep_home(undo_cause_) : finish();
  }
}

void Membership::failed(const std::string& why) {
  switch (step_) {
    case Step::kStart:
    case Step::kConnect:
      undo_cause_ = why;
      members_[host_].error = why;
      step_ = Step::kUndo;
      return;
    case Step::kShare:  // it is a member all the same
    case Step::kVacate:
    case Step::kHandOver:
    case Step::kRole:
      members_[host_] = Member{State::kActive, why};
      return heir_.empty() ? finish() : keep_home(why);
    case Step::kUndo: return done();
    case Step::kNone:
    case Step::kDisconnect:
    case Step::kStop: return;  // the domain ends with the cause
  }
}

void Membership::lost(const std::string& host, const std::string& why) {
  members_[host] = Member{State::kFailed, why};
  if (heir_ == host)
    keep_home(why);
  else if (step_ != Step::kNone && host_ == host)
    finish();
}

void Membership::finish() {
  step_ = Step::kNone;
  take_up_next();
}

}  // namespace xenspan::daemon
