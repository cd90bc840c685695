#include "dom0-daemon/daemon/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <numeric>

#include "dom0-daemon/daemon/size_text.h"

namespace xenspan::daemon {
namespace {

Error refusal(int code, std::string message) { return Error{code, std::move(message)}; }

const HostChoice* find(const std::vector<HostChoice>& known, const std::string& name) {
  const auto found = std::find_if(known.begin(), known.end(),
                                  [&](const HostChoice& each) { return each.name == name; });
  return found == known.end() ? nullptr : &*found;
}

std::string names(const std::vector<HostChoice>& known) {
  std::string text;
  for (const HostChoice& each : known) text += (text.empty() ? "" : ", ") + each.name;
  return text;
}

Result<std::vector<HostRecord>> named_hosts(const PlacementRequest& request,
                                            const std::vector<HostChoice>& known) {
  std::vector<HostRecord> hosts;
  for (const std::string& name : request.hosts) {
    const HostChoice* host = find(known, name);
    if (host == nullptr)
      return refusal(ENOENT,
                     fmt::format("no such host: {}: the hosts here are {}", name, names(known)));
    if (!host->active)
      return refusal(EHOSTDOWN, fmt::format("host {} is not connected: {}: see `xenspan hosts`",
                                            name, host->error));
    const auto same = [&](const HostRecord& each) { return each.name == name; };
    if (std::any_of(hosts.begin(), hosts.end(), same))
      return refusal(EINVAL, fmt::format("host {} is named twice: name each host once", name));
    hosts.push_back(host->record);
  }
  const auto home = std::find_if(hosts.begin(), hosts.end(),
                                 [&](const HostRecord& each) { return each.name == request.home; });
  if (home == hosts.end())
    return refusal(EINVAL, fmt::format("host {} is the home, which keeps the program's files and "
                                       "terminal: add it to the hosts, or ask another host with "
                                       "--host",
                                       request.home));
  std::rotate(hosts.begin(), home, home + 1);
  return hosts;
}

std::vector<HostRecord> all_hosts(const PlacementRequest& request,
                                  const std::vector<HostChoice>& known) {
  std::vector<HostRecord> hosts;
  for (const HostChoice& each : known)
    if (each.active && each.name == request.home) hosts.push_back(each.record);
  for (const HostChoice& each : known)
    if (each.active && each.name != request.home) hosts.push_back(each.record);
  // Every host has at least one vCPU.
  if (request.vcpus > 0 && hosts.size() > static_cast<std::size_t>(request.vcpus))
    hosts.resize(static_cast<std::size_t>(request.vcpus));
  return hosts;
}

Status check_versions_and_cpus(const std::vector<HostRecord>& hosts) {
  const HostRecord& home = hosts.front();
  for (const HostRecord& host : hosts) {
    if (host.version != home.version)
      return refusal(EPROTO, fmt::format("host {} runs xenspan {}, host {} runs {}: install the "
                                         "same version on both",
                                         host.name, host.version, home.name, home.version));
    const std::string missing = missing_features(home.cpu, host.cpu);
    if (!missing.empty())
      return refusal(EOPNOTSUPP,
                     fmt::format("host {}'s CPU lacks what host {}'s has ({}): leave {} out, or "
                                 "start the program from {}",
                                 host.name, home.name, missing, host.name, host.name));
  }
  return {};
}

Result<std::uint64_t> choose_memory(const PlacementRequest& request,
                                    const std::vector<HostRecord>& hosts) {
  if (request.memory == 0)
    return std::min_element(hosts.begin(), hosts.end(),
                            [](const auto& a, const auto& b) { return a.memory < b.memory; })
        ->memory;
  for (const HostRecord& host : hosts)
    if (request.memory > host.memory_free())
      return refusal(ENOMEM, fmt::format("not enough memory on host {}: {} wanted, {} of {} free: "
                                         "use a smaller --memory or other --hosts",
                                         host.name, size_text(request.memory),
                                         size_text(host.memory_free()), size_text(host.memory)));
  return request.memory;
}

// How many vCPUs each host gets: in proportion to cores, at least one, largest remainder first.
std::vector<int> share(int vcpus, const std::vector<HostRecord>& hosts) {
  const auto core_count = [](const HostRecord& host) {
    return static_cast<int>(host.cores.size());
  };
  int cores = 0;
  for (const HostRecord& host : hosts) cores += core_count(host);
  std::vector<int> shares;
  for (const HostRecord& host : hosts)
    shares.push_back(std::max(1, vcpus * core_count(host) / cores));
  // What is missing of the exact share, times `cores`: positive for a host that got too few.
  const auto lack = [&](std::size_t i) { return vcpus * core_count(hosts[i]) - shares[i] * cores; };
  for (int left = vcpus - std::accumulate(shares.begin(), shares.end(), 0); left != 0;) {
    std::size_t best = hosts.size();
    for (std::size_t i = 0; i < hosts.size(); ++i) {
      if (left < 0 && shares[i] == 1) continue;
      if (best == hosts.size() || (left > 0 ? lack(i) > lack(best) : lack(i) < lack(best)))
        best = i;
    }
    shares[best] += left > 0 ? 1 : -1;
    left += left > 0 ? -1 : 1;
  }
  return shares;
}

// A host is full when each of its cores has one of these vCPUs. What is too much for all of them is
// shared out as ever. The hosts without any are left out.
std::vector<int> packed(int vcpus, std::vector<HostRecord>& hosts) {
  int cores = 0;
  for (const HostRecord& host : hosts) cores += static_cast<int>(host.cores.size());
  if (vcpus >= cores) return share(vcpus, hosts);
  std::vector<int> shares;
  for (int left = vcpus; left > 0; left -= shares.back())
    shares.push_back(std::min(left, static_cast<int>(hosts[shares.size()].cores.size())));
  hosts.resize(shares.size());
  return shares;
}

void take_cores(Placement& placement, int index, int count) {
  const HostRecord& host = placement.hosts[static_cast<std::size_t>(index)];
  std::vector<int> use = host.core_use;
  use.resize(host.cores.size());
  for (int i = 0; i < count; ++i) {
    const auto least = std::min_element(use.begin(), use.end());
    ++*least;
    placement.vcpus.push_back({index, host.cores[static_cast<std::size_t>(least - use.begin())]});
  }
}

}  // namespace

int Placement::vcpus_on(int host) const {
  return static_cast<int>(std::count_if(vcpus.begin(), vcpus.end(),
                                        [&](const Vcpu& vcpu) { return vcpu.host == host; }));
}

CoreChoice choose_core(const HostRecord& host, const std::vector<int>& own) {
  CoreChoice best;
  for (std::size_t i = 0; i < host.cores.size(); ++i) {
    const int use =
        std::max(i < host.core_use.size() ? host.core_use[i] : 0, i < own.size() ? own[i] : 0);
    if (i == 0 || use < best.shared) best = {host.cores[i], use};
  }
  return best;
}

std::vector<int> vcpu_shares(int vcpus, const std::vector<HostRecord>& hosts) {
  return share(vcpus, hosts);
}

Status check_joins(const HostRecord& home, const HostRecord& host) {
  return check_versions_and_cpus({home, host});
}

Result<Placement> place(const PlacementRequest& request, const std::vector<HostChoice>& known) {
  if (request.vcpus < 0 || request.vcpus > kMaxVcpus)
    return refusal(EINVAL,
                   fmt::format("{} vCPUs are out of range: use 1 to {}", request.vcpus, kMaxVcpus));
  Placement placement;
  if (request.hosts.empty()) {
    placement.hosts = all_hosts(request, known);
  } else {
    auto hosts = named_hosts(request, known);
    if (!hosts) return hosts.error();
    placement.hosts = std::move(*hosts);
  }
  if (placement.hosts.empty() || placement.hosts.front().name != request.home)
    return refusal(EHOSTDOWN, fmt::format("host {} is not ready yet: try again", request.home));
  if (Status fit = check_versions_and_cpus(placement.hosts); !fit) return fit.error();
  const auto memory = choose_memory(request, placement.hosts);
  if (!memory) return memory.error();
  placement.memory = *memory;
  placement.memory_promised = request.memory != 0;

  int vcpus = request.vcpus;
  if (vcpus == 0)
    for (const HostRecord& host : placement.hosts) vcpus += static_cast<int>(host.cores.size());
  vcpus = std::min(vcpus, kMaxVcpus);
  if (!request.pack && static_cast<std::size_t>(vcpus) < placement.hosts.size())
    return refusal(EINVAL, fmt::format("{} vCPUs cannot be spread over {} hosts: use --vcpus {} or "
                                       "more, or fewer hosts",
                                       vcpus, placement.hosts.size(), placement.hosts.size()));
  const std::vector<int> shares =
      request.pack ? packed(vcpus, placement.hosts) : share(vcpus, placement.hosts);
  for (std::size_t i = 0; i < shares.size(); ++i)
    take_cores(placement, static_cast<int>(i), shares[i]);
  return placement;
}

}  // namespace xenspan::daemon
