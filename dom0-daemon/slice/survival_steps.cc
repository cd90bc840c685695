#include "dom0-daemon/slice/survival_steps.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "dom0-daemon/slice/answered_step.h"
#include "dom0-daemon/slice/member_steps.h"
#include "dom0-daemon/slice/report.h"

namespace xenspan::slice {
namespace {

using nlohmann::json;

json traffic_json(const dsm::PeerTraffic& traffic) {
  return {{"sent", traffic.sent}, {"received", traffic.received}, {"idle", traffic.idle}};
}

// Every slice makes the same table of the home's: slots change hands among those that are left, and
// each counts one move more than anybody can know of.
dsm::SlotTable without_the_dead(dsm::SlotTable table, dsm::HostMask live) {
  table.rebalance(live);
  for (unsigned slot = 0; slot < dsm::SlotTable::kSlots; ++slot) {
    table.assign(slot, table.manager_of_slot(slot), dsm::next_move(table.moves_of_slot(slot)));
  }
  return table;
}

}  // namespace

Status SurvivalSteps::forget_all(const json& body) {
  const auto table = dsm::SlotTable::parse(body.value("slots", ""));
  const auto live = hosts_in(body, "live");
  if (!live) return live.error();
  if (!table || *live == 0) return Error{EPROTO, "`slots` is no table, or `live` names nobody"};
  return forget(without_the_dead(*table, *live), body.at("epoch").get<dsm::Epoch>());
}

Status SurvivalSteps::carry_out(const std::string& op, const json& body, json& answer) {
  if (op == "freeze") {
    const auto lost = hosts_in(body, "lost");
    return lost ? freeze(*lost) : lost.error();
  }
  if (op == "traffic") return answer["traffic"] = traffic_json(engine().peer_traffic()), Status();
  if (op == "forget") return forget_all(body);
  if (op == "claim") return engine().claim();
  if (op == "abandon") return engine().abandon();
  if (op == "thaw") return engine().thaw();
  const auto judged = engine().judge();
  if (!judged) return judged.error();
  bool cut = false;
  answer["alone"] = runs_json(*judged, cut);
  answer["cut"] = cut;
  return {};
}

bool SurvivalSteps::take_survival_step(ControlChannel& control, const std::string& op,
                                       const json& body) {
  constexpr const char* kOps[] = {"freeze", "traffic", "forget", "claim",
                                  "judge",  "abandon", "thaw"};
  if (std::find(std::begin(kOps), std::end(kOps), op) == std::end(kOps)) return false;
  take_answered_step("xs-survival", control, body,
                     [this, op, body](json& answer) { return carry_out(op, body, answer); });
  return true;
}

}  // namespace xenspan::slice
