// By which wire the slices of a new domain reach each other: what was asked for, and what the hosts
// can do.
//
// A function of what the hosts said about themselves. `auto` takes RDMA when every host of the
// domain has announced a device that its address is on, and TCP otherwise; `verbs` is refused with
// one sentence when a host cannot. Threading: plain values.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/host_record.h"
#include "xenstore-schema/values.h"

namespace xenspan::daemon {

enum class TransportWish { kAuto, kTcp, kVerbs };

inline constexpr const char* kTransportWords = "tcp, verbs or auto";
std::optional<TransportWish> transport_wish_from(std::string_view word);

// `hosts` are those of the domain, home first. kNone for a domain on one host. `otherwise` ends the
// sentence of a refusal.
Result<xenstore::Transport> choose_transport(TransportWish wish,
                                             const std::vector<HostRecord>& hosts,
                                             const char* otherwise = "use --transport tcp");

}  // namespace xenspan::daemon
