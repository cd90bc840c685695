// What is asked of a domain's members, and what becomes of it: add, drain and remove as a state
// machine, pure and deterministic, so that every order of requests, failures and losses can be
// tested.
//
// One change is under way at a time. A request that has to wait for its turn stays where it was
// written, and whoever removes it there withdraws it; one that has been taken up shows as the
// member's state. The owner (Domain) asks step() what is to be done now, does it, and tells done()
// or failed(); what the outside looks like (is the host there, does the program run) it tells with
// the question.
//
//   add     (not a member, left, failed) -> joining: kStart, kConnect -> active: kShare
//   drain   (active) -> draining: kVacate, kHandOver, kDisconnect, kStop -> left
//   remove  as drain, and then the member is forgotten; one that has left or failed at once
//   drain of the home: first its heir leaves as any other and joins anew, ready for the role
//   (kVacate
//           .. kStop, kStart, kConnect, of the heir); then kVacate of the home and kRole. The heir
//           goes on from there: in its Membership the old home is about to hand over (resume()).
//
// What fails before a host is active is undone (kUndo) and the member is `failed`; the domain goes
// on. A drain that cannot go on before kDisconnect leaves the member `active`, with the cause; a
// home that keeps its role gets its share of vCPUs again. A member that died is `failed`, in the
// middle of anything. Threading: plain value.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "xenstore-schema/values.h"

namespace xenspan::daemon {

class Membership {
 public:
  using State = xenstore::MemberState;
  using Request = xenstore::MemberRequest;

  enum class Step {
    kNone,        // nothing is under way
    kStart,       // a slice is started on the host, and listens
    kConnect,     // it and all others connect
    kShare,       // it gets vCPUs
    kVacate,      // its vCPUs go to others, and with them the last thread
    kRole,        // the home's: the heir becomes the home
    kHandOver,    // its pages and manager slots go to others
    kDisconnect,  // the others close their connections to it
    kStop,        // its process ends
    kUndo,        // the others forget it and its process ends, after a join that failed
  };
  struct Member {
    State state = State::kActive;
    std::string error;  // of the last request that failed or was refused; empty: none
  };
  // What became of a request. Waiting ones get theirs later (`answers`).
  struct Answer {
    std::string host;
    Request request = Request::kNone;  // kNone: a word that is none
    Status status;                     // success: taken up
  };
  // Why a host cannot become a member now, or success. Asked when a request to add is taken up.
  using MayJoin = std::function<Status(const std::string& host)>;
  // Who becomes the home when the present one is drained, an active member; or what keeps the role
  // where it is: "and .." of a sentence. Asked when the request is taken up.
  using HeirOfHome = std::function<Result<std::string>()>;

  Membership(std::string domain, std::string home, const std::vector<std::string>& hosts);

  // Somebody wrote `word` as the host's request. Answers go to `answers`; none: it waits.
  void ask(const std::string& host, const std::string& word);
  // The node of a waiting request was removed. False: none waited.
  bool withdraw(const std::string& host);
  // The program runs: requests are taken up from now on.
  void open(MayJoin may_join, HeirOfHome heir_of_home = {});
  // At the heir, before open(): how each host stands, and that `leaves`, the home until now, is
  // about to hand over its pages; `forget`: and to be forgotten.
  void resume(std::map<std::string, State> states, const std::string& leaves, bool forget);
  // The domain is over: what waits is refused with `why`, nothing is under way any more.
  void close(const std::string& why);

  Step step() const { return step_; }
  const std::string& host() const { return host_; }  // whose change is under way
  const std::string& heir() const { return heir_; }  // while the home is drained; else empty
  bool forgets() const { return forget_; }           // the host that leaves
  // The step has been done.
  void done();
  // It cannot be done.
  void failed(const std::string& why);
  // A member has died, and the domain goes on without it.
  void lost(const std::string& host, const std::string& why);
  // In kVacate and kShare: whether to go on, asked between two moves. False: somebody has turned
  // the change round, and step() says how.
  bool goes_on(Step step) const { return step_ == step; }

  const std::map<std::string, Member>& members() const { return members_; }
  // Hosts that are to be shown as members no more, since the last call.
  std::vector<std::string> take_forgotten() { return std::exchange(forgotten_, {}); }
  // In the order in which they came about.
  std::vector<Answer> take_answers() { return std::exchange(answers_, {}); }
  // Whether a change of this host is under way or waits.
  bool busy(const std::string& host) const;

 private:
  struct Waiting {
    std::string host;
    Request request;
  };

  void answer(const std::string& host, Request request, Status status);
  void refuse(const std::string& host, Request request, const std::string& why);
  bool joins_under_way(const std::string& host, Request request);
  void take_up_next();
  void take_up(const Waiting& next);
  void add(const Waiting& next);
  void leave(const Waiting& next);
  void finish();
  void leave_home(const Waiting& next);
  void keep_home(const std::string& why);
  bool last_host(const std::string& host) const;
  const Member* find(const std::string& host) const;

  std::string domain_, home_, heir_;
  std::map<std::string, Member> members_;
  std::deque<Waiting> waiting_;
  std::vector<Answer> answers_;
  std::vector<std::string> forgotten_;
  MayJoin may_join_;  // set: requests are taken up
  HeirOfHome heir_of_home_;
  std::string closed_;
  Step step_ = Step::kNone;
  std::string host_;
  std::string undo_cause_;
  bool forget_ = false;  // the host under way was asked to be removed
};

}  // namespace xenspan::daemon
