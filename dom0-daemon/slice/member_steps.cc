#include "dom0-daemon/slice/member_steps.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "dom0-daemon/slice/answered_step.h"

namespace xenspan::slice {
namespace {

using nlohmann::json;

dsm::HostId host_in(const json& body) { return body.value("host", dsm::HostId{dsm::kMaxHosts}); }

dsm::tcp::Peer peer_in(const json& body) {
  dsm::tcp::Peer peer;
  peer.name = body.value("name", "");
  peer.address = body.value("address", "");
  peer.port = body.value("port", std::uint16_t{0});
  peer.incarnation = body.value("incarnation", 0U);
  return peer;
}

}  // namespace

Result<dsm::HostMask> hosts_in(const json& body, const char* key) {
  dsm::HostMask mask = 0;
  for (const unsigned host : body.value(key, std::vector<unsigned>{})) {
    if (host >= dsm::kMaxHosts) return Error{EPROTO, std::string("`") + key + "` is out of range"};
    mask |= dsm::mask_of(static_cast<dsm::HostId>(host));
  }
  return mask;
}

Status MemberSteps::learn(const json& body) {
  const auto table = dsm::SlotTable::parse(body.value("slots", ""));
  if (!table) return Error{EPROTO, "`slots` is no table"};
  learn_slots(*table);
  return {};
}

Status MemberSteps::carry_out(const std::string& op, const json& body, json& answer) {
  if (op == "add-peer") return add_peer(host_in(body), peer_in(body));
  if (op == "admit-peer") return admit_peer(host_in(body));
  if (op == "remove-peer") return remove_peer(host_in(body));
  if (op == "slots") return answer["slots"] = engine().slots().text(), Status();
  if (op == "learn-slots") return learn(body);
  if (op == "settle") {
    if (Status learnt = learn(body); !learnt) return learnt;
    return engine().settle();
  }
  if (op == "vacate") {
    const auto left = vacate(host_in(body));
    if (!left) return left.error();
    answer["threads"] = *left;
    return {};
  }
  const auto hosts = hosts_in(body, op == "drain" ? "heirs" : "live");
  if (!hosts) return hosts.error();
  if (op == "take-slots") return engine().take_slots(*hosts);
  rest();
  return engine().drain(*hosts);
}

bool MemberSteps::take_step(ControlChannel& control, const std::string& op, const json& body) {
  constexpr const char* kOps[] = {"add-peer", "admit-peer", "remove-peer", "slots", "learn-slots",
                                  "settle",   "vacate",     "take-slots",  "drain"};
  if (std::find(std::begin(kOps), std::end(kOps), op) == std::end(kOps)) return false;
  take_answered_step("xs-members", control, body, [this, op, body](json& answer) {
    // A step that was given up may still be waiting for a host.
    std::unique_lock guard(lock_, std::defer_lock);
    if (op != "vacate") guard.lock();
    return carry_out(op, body, answer);
  });
  return true;
}

}  // namespace xenspan::slice
