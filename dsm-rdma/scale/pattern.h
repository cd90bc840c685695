// What the hosts of a simulated domain do with memory: ways of sharing that programs have.
//
// One vCPU a host. Each access follows from pattern, host and its number, and lots drawn from the
// generator that is given: same seed, same accesses. Pure functions.
#pragma once

#include <cstdint>

#include "dsm-rdma/scale/random.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm::scale {

enum class Pattern : std::uint8_t {
  kExchange,    // pages of its own, and two at its borders that a neighbour reads each round
  kReadMostly,  // few pages that every host reads again after each of the rare writes
  kMigratory,   // locks and the data they guard: read, then written, by one host after the other
  kAllToAll,    // each host writes a page of its own and reads those of others in turn
  kRandom,      // any page, one access in five a write
};
inline constexpr Pattern kPatterns[] = {Pattern::kExchange, Pattern::kReadMostly,
                                        Pattern::kMigratory, Pattern::kAllToAll, Pattern::kRandom};

const char* name_of(Pattern pattern);

struct Access {
  Gfn gfn;
  bool write;
};

// Pages the pattern uses: gfns 0 .. pages_of()-1.
Gfn pages_of(Pattern pattern, unsigned hosts);
// Access number `count` of this host; `before` is the one before it.
Access next_access(Pattern pattern, unsigned hosts, HostId host, std::uint64_t count,
                   const Access& before, Random& random);

}  // namespace xenspan::dsm::scale
