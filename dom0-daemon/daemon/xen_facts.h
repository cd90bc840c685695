// What a host's record says of its Xen, as it travels between daemons, and what follows from it.
// Plain values; no Xen is needed. Threading: none.
#pragma once

#include <cstdint>
#include <string>

#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

// What a host tells the others about its Xen.
struct XenFacts {
  std::string version;            // "4.17"; "": no Xen
  std::string problem;            // why it cannot hold a slice; "": it can
  std::uint64_t free_memory = 0;  // bytes
};
Json to_json(const XenFacts& facts);
XenFacts xen_facts_from(const Json& object);

// Why a host with these facts cannot hold a slice of a domain at home on `home`; "" when it can.
// `memory`: bytes of the domain.
std::string xen_refusal(const std::string& host, const XenFacts& facts, const std::string& home,
                        const XenFacts& home_facts, std::uint64_t memory);

}  // namespace xenspan::daemon
