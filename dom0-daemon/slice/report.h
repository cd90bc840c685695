// What a slice tells about itself: the `counters` and `stats` events of control.md.
#pragma once

#include <nlohmann/json.hpp>

#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::slice {

nlohmann::json counters_event(hypervisor::usermode::Slice& slice);
// The parts of both that the engine knows, for any backend.
nlohmann::json engine_counters(const dsm::EngineStats& stats);
nlohmann::json engine_stats(const dsm::EngineStats& stats);
nlohmann::json stats_event(hypervisor::usermode::Slice& slice, std::size_t hottest,
                           const nlohmann::json& id);

// As many ranges as a packet has room for; `cut`: there are more.
nlohmann::json runs_json(const std::vector<dsm::PageRun>& runs, bool& cut);
nlohmann::json holdings_event(hypervisor::usermode::Slice& slice, const nlohmann::json& order);

}  // namespace xenspan::slice
