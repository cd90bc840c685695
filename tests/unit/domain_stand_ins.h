// What a Domain needs around it, for tests: slices that note what they are told, and a household
// that does what it is asked for. Threading: one thread.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dom0-daemon/daemon/domain.h"

namespace xenspan::daemon {

inline constexpr char kUuid[] = "0f1e2d3c-0000-4000-8000-000000000001";

// Each host's orders, as words.
class StandInSlices : public SliceLinks {
 public:
  Status create_slice(const std::string&, const std::string&, const User&, Json,
                      std::vector<UniqueFd>, std::uint64_t) override {
    return {};
  }
  void send_to_slice(const std::string& host, const std::string&, const Json& message) override {
    told[host].push_back(text_or(message, "op", ""));
    last[host] = message;
  }
  void set_slice_cores(const std::string&, const std::string&, const std::vector<int>&) override {}
  void stop_slice(const std::string& host, const std::string&, const std::string&) override {
    told[host].push_back("stop");
  }
  std::vector<std::string> bound_here(const std::string&) const override { return bound; }
  void name_heir(const std::string& host, const std::string&, const std::string& heir) override {
    told[host].push_back("heir is " + heir);
  }
  void follow(const std::string&, const std::string&) override {}
  void claim_slice(const std::string& host, const std::string&) override {
    told[host].push_back("claimed");
  }

  std::vector<std::string> bound;
  std::map<std::string, std::vector<std::string>> told;
  std::map<std::string, Json> last;
};

class Household : public Domain::Handler, public Votes {
 public:
  void domain_changed(Domain&) override {}
  void domain_over(Domain&) override {}
  Result<HostRecord> find_host(const std::string& name) override {
    const auto found = hosts.find(name);
    if (found == hosts.end()) return Error{ENOENT, name};
    return found->second;
  }
  void member_answered(Domain&, const Membership::Answer& answer) override {
    answers.push_back(answer.status ? "ok" : answer.status.error().message);
  }
  Status may_hold_slice(const Domain&, const HostRecord&) override { return {}; }
  void prepare_slice(const Domain&, const std::string&, std::function<void(Status)>) override {}
  Votes& votes() override { return *this; }
  bool counts(const std::string&, int index) const override { return !left.contains(index); }
  Json standing(const std::string&) const override { return nullptr; }
  void join(const std::string&, int) override {}
  void leave(const std::string&, int index, bool ended) override {
    left.insert(index);
    if (ended) known_to_have_ended.push_back(index);
  }
  void give_home(const std::string&, int index) override { home = index; }
  int home_of(const std::string&) const override { return home; }
  void give_away(Domain&, const std::string& heir, Json state,
                 std::function<void(Status)> done) override {
    given_to = heir;
    given = std::move(state);
    on_taken = std::move(done);
  }
  void given_away(Domain&, const std::string&,
                  std::vector<std::pair<std::string, Domain::MoveDone>> waits) override {
    gone = true;
    waiting = std::move(waits);
  }
  std::map<std::string, HostRecord> hosts;  // that are there to join
  std::vector<std::string> answers;         // to requests for members
  std::set<int> left;
  std::vector<int> known_to_have_ended;
  int home = 0;
  std::string given_to;
  Json given;
  std::function<void(Status)> on_taken;
  bool gone = false;
  std::vector<std::pair<std::string, Domain::MoveDone>> waiting;
};

}  // namespace xenspan::daemon
