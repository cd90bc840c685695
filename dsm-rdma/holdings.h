// What this host knows of the pages that lost hosts had: for the report of a loss.
//
// A page is lost when no host that is left has it. Its manager knows where it is; for a page whose
// manager is lost itself, the home knows whether it ever gave the page away, and the others whether
// they have it now. Whoever asks all that are left puts these together. As things will be when what
// is under way has ended: a page that a lost host was to send counts for the one that waits for it.
#pragma once

#include <vector>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

struct PageRun {
  Gfn first;
  std::uint64_t count;
};

struct Holdings {
  std::vector<PageRun> alone;  // managed here, held by lost hosts only
  // Of pages whose manager is lost:
  std::vector<PageRun> held;  // held here
  std::vector<PageRun> gone;  // held here once
};

// Appends a page, which comes after all before.
inline void add_page(std::vector<PageRun>& runs, Gfn gfn) {
  if (!runs.empty() && runs.back().first + runs.back().count == gfn) {
    ++runs.back().count;
  } else {
    runs.push_back({gfn, 1});
  }
}

}  // namespace xenspan::dsm
