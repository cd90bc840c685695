// `xenspan advise`: what a domain's statistics say about placement and data layout.
//
// Which vCPUs belong on one host (daemon/affinity.h), and which data to pad: pages where vCPUs of
// several hosts fault on different bytes, nobody on another's, so that each could have a page of
// its own. Threading: pure functions. The document may come from a file: what does not fit in it
// is left out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/affinity.h"
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::cli {

using daemon::Json;

// A stretch of a page and those who fault on it.
struct Place {
  std::vector<std::size_t> vcpus;  // ascending
  std::uint64_t low = 0, high = 0;
  bool writes = false;
  std::uint64_t faults = 0;
  std::string name;  // of `low`: symbol or mapping
};

struct Advice {
  struct Pair {  // of vCPUs on different hosts
    std::size_t first, second;
    std::uint64_t faults;  // of both, on pages taken from each other
  };
  struct Page {
    std::uint64_t gfn = 0;
    std::uint64_t faults = 0;
    // Places that no vCPU shares with those of another part. Several parts: false sharing, each
    // wants a page of its own.
    std::vector<std::vector<Place>> parts;
  };
  std::string domain;
  double seconds = 0;
  std::vector<std::string> hosts;                 // home first
  std::vector<std::size_t> vcpu_hosts;            // index into `hosts`
  std::vector<std::vector<std::uint64_t>> vcpus;  // [i][j]: i took from j
  std::vector<std::vector<std::uint64_t>> host_takes;
  std::uint64_t faults = 0;  // that took a page from another host
  std::vector<Pair> pairs;   // those that matter, most faults first
  daemon::Affinity grouping;
  std::vector<Page> to_pad;
  std::vector<Page> shared;  // vCPUs of several hosts need the same bytes
  // On those pages of both that malloc gave out blocks of, or keeps its books in.
  std::uint64_t allocator_faults = 0;

  bool moves() const;              // `grouping` is not what is
  bool allocator_matters() const;  // another malloc may help
};

// From the document of `xenspan stats`.
Result<Advice> advice_from(const Json& stats);

// For people and for programs.
std::string advice_text(const Advice& advice);
Json to_json(const Advice& advice);

}  // namespace xenspan::cli
