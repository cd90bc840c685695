// The worker's part when hosts join and leave: each order is one step of the daemon's plan
// (dom0-daemon/daemon/domain_members.cc), done in a thread of its own because it may wait for other
// hosts, and answered with `done` (control.md).
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>

#include "dom0-daemon/hypervisor/usermode/service_threads.h"
#include "dom0-daemon/slice/worker.h"

namespace xenspan::slice {
namespace {

using hypervisor::usermode::Slice;
using nlohmann::json;

dsm::HostId host_in(const json& body) { return body.value("host", dsm::HostId{dsm::kMaxHosts}); }

Result<dsm::HostMask> hosts_in(const json& body, const char* key) {
  dsm::HostMask mask = 0;
  for (const unsigned host : body.value(key, std::vector<unsigned>{})) {
    if (host >= dsm::kMaxHosts) return Error{EPROTO, std::string("`") + key + "` is out of range"};
    mask |= dsm::mask_of(static_cast<dsm::HostId>(host));
  }
  return mask;
}

Status add_peer(Slice& slice, const json& body) {
  dsm::tcp::Peer peer;
  peer.name = body.value("name", "");
  peer.address = body.value("address", "");
  peer.port = body.value("port", std::uint16_t{0});
  peer.incarnation = body.value("incarnation", 0U);
  return slice.add_peer(host_in(body), peer);
}

Status learn_slots(Slice& slice, const json& body) {
  const auto table = dsm::SlotTable::parse(body.value("slots", ""));
  if (!table) return Error{EPROTO, "`slots` is no table"};
  slice.learn_slots(*table);
  return {};
}

// How long a look at who is still there may take before the daemon hears of it.
constexpr std::chrono::milliseconds kVacateLook{500};

Status vacate(Slice& slice, const json& body, json& answer) {
  if (slice.home() == nullptr) return Error{EPROTO, "`vacate` is for the home"};
  const auto left = slice.home()->vacate(host_in(body), kVacateLook);
  if (!left) return left.error();
  answer["threads"] = *left;
  return {};
}

Status carry_out(Slice& slice, const std::string& op, const json& body, json& answer) {
  auto& engine = slice.engine();
  if (op == "add-peer") return add_peer(slice, body);
  if (op == "admit-peer") return slice.admit_peer(host_in(body));
  if (op == "remove-peer") return slice.remove_peer(host_in(body));
  if (op == "slots") return answer["slots"] = engine.slots().text(), Status();
  if (op == "learn-slots") return learn_slots(slice, body);
  if (op == "settle") {
    if (Status learnt = learn_slots(slice, body); !learnt) return learnt;
    return engine.settle();
  }
  if (op == "vacate") return vacate(slice, body, answer);
  const auto hosts = hosts_in(body, op == "drain" ? "heirs" : "live");
  if (!hosts) return hosts.error();
  return op == "drain" ? engine.drain(*hosts) : engine.take_slots(*hosts);
}

}  // namespace

bool Worker::change_members(const std::string& op, const json& body) {
  constexpr const char* kOps[] = {"add-peer", "admit-peer", "remove-peer", "slots", "learn-slots",
                                  "settle",   "vacate",     "take-slots",  "drain"};
  if (std::find(std::begin(kOps), std::end(kOps), op) == std::end(kOps)) return false;
  using hypervisor::usermode::Priority;
  hypervisor::usermode::start_service_thread("xs-members", Priority::kCalls, [this, op, body] {
    json answer{{"event", "done"}, {"id", body.value("id", json())}};
    // A step that was given up may still be waiting for a host.
    std::unique_lock guard(members_lock_, std::defer_lock);
    if (op != "vacate") guard.lock();
    try {
      if (Status done = carry_out(*slice_, op, body, answer); !done)
        answer["error"] = done.error().message;
    } catch (const json::exception& error) {
      answer["error"] = std::string("xenspand's order is wrong: ") + error.what();
    }
    control_.send(answer);
  });
  return true;
}

}  // namespace xenspan::slice
