#include "dom0-daemon/daemon/member_shares.h"

#include <algorithm>

#include "dom0-daemon/daemon/placement.h"

namespace xenspan::daemon {
namespace {

int count_on(const std::string& host, const std::vector<std::string>& on) {
  return static_cast<int>(std::count(on.begin(), on.end(), host));
}

}  // namespace

std::optional<std::uint32_t> next_for(const std::string& host, const std::vector<std::string>& on,
                                      const std::vector<HostRecord>& hosts) {
  // With fewer vCPUs than hosts somebody has none, and it may as well be the newcomer.
  if (on.size() < hosts.size()) return std::nullopt;
  const std::vector<int> shares = vcpu_shares(static_cast<int>(on.size()), hosts);
  const std::string* giver = nullptr;
  int most = 0;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const int beyond = count_on(hosts[i].name, on) - shares[i];
    if (hosts[i].name == host && beyond >= 0) return std::nullopt;
    if (hosts[i].name == host || beyond <= most) continue;
    giver = &hosts[i].name;
    most = beyond;
  }
  if (giver == nullptr) return std::nullopt;
  for (std::size_t vcpu = on.size(); vcpu-- > 0;)
    if (on[vcpu] == *giver) return static_cast<std::uint32_t>(vcpu);
  return std::nullopt;
}

std::string heir_of(const std::vector<std::string>& on, const std::vector<HostRecord>& hosts) {
  const auto load = [&](const HostRecord& host) {
    return (count_on(host.name, on) + 1.0) /
           static_cast<double>(std::max<std::size_t>(host.cores.size(), 1));
  };
  return std::min_element(hosts.begin(), hosts.end(),
                          [&](const auto& a, const auto& b) { return load(a) < load(b); })
      ->name;
}

}  // namespace xenspan::daemon
