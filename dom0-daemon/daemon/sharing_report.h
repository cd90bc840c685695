// Who fights over what in a whole domain, put together from what its slices counted.
//
// A slice knows exactly which host a page came from, and of the most contended pages which of its
// own vCPUs fault on them and where. Here each vCPU's faults on a host's pages are shared out among
// that host's vCPUs as they fault on the same pages; where no page tells, evenly. Threading: pure
// functions. Slices' words are not trusted: what does not fit is left out.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

inline constexpr std::size_t kFoughtPages = 20;    // that are named
inline constexpr std::size_t kUsersOfPage = 16;    // that are named, of each
inline constexpr std::size_t kMatrixColumns = 64;  // the largest of each row

struct PageUser {
  std::size_t vcpu = 0;
  std::uint64_t low = 0, high = 0;  // bytes of the page
  bool writes = false;
  std::uint64_t faults = 0;
};

struct FoughtPage {
  std::uint64_t gfn = 0;
  std::uint64_t faults = 0;
  std::vector<PageUser> users;  // most faults first
};

struct DomainSharing {
  double seconds = 0;
  // [i][j]: faults of vCPU i on pages that were taken from vCPU j.
  std::map<std::size_t, std::map<std::size_t, std::uint64_t>> vcpus;
  std::map<std::string, std::map<std::string, std::uint64_t>> hosts;
  std::vector<FoughtPage> pages;  // that vCPUs of several hosts fault on, most faults first
};

// `by_host`: the slices' `stats` events; `vcpu_hosts`: the host of each vCPU.
DomainSharing merge_sharing(const std::map<std::string, Json>& by_host,
                            const std::vector<std::string>& vcpu_hosts);

// The bytes whose names sharing_json() wants, in its order.
std::vector<std::uint64_t> bytes_to_name(const DomainSharing& sharing);

Json sharing_json(const DomainSharing& sharing, const std::vector<std::string>& vcpu_hosts,
                  const std::vector<std::string>& names);

}  // namespace xenspan::daemon
