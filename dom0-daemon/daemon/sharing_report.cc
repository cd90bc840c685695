#include "dom0-daemon/daemon/sharing_report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "dsm-rdma/types.h"

namespace xenspan::daemon {
namespace {

constexpr std::uint64_t kMostFaults = std::uint64_t{1} << 48;  // of one count; more is nonsense

using Shares = std::map<std::size_t, std::map<std::size_t, double>>;

std::vector<FoughtPage> merge_pages(const std::map<std::string, Json>& by_host,
                                    const std::vector<std::string>& vcpu_hosts) {
  std::map<std::uint64_t, FoughtPage> by_gfn;
  for (const auto& [host, stats] : by_host) {
    const Json* own = object_field(stats, "sharing");
    const Json* pages = own == nullptr ? nullptr : array_field(*own, "pages");
    if (pages == nullptr) continue;
    for (const Json& page : *pages) {
      const auto gfn = number_field(page, "gfn");
      const Json* users = array_field(page, "users");
      if (!gfn || users == nullptr) continue;
      FoughtPage& known = by_gfn[*gfn];
      known.gfn = *gfn;
      for (const Json& user : *users) {
        const PageUser each{number_or(user, "vcpu", vcpu_hosts.size()), number_or(user, "low", 0),
                            number_or(user, "high", dsm::kPageSize), flag_field(user, "writes"),
                            number_or(user, "faults", 0)};
        if (each.vcpu >= vcpu_hosts.size() || vcpu_hosts[each.vcpu] != host || each.faults == 0 ||
            each.faults > kMostFaults || each.low > each.high || each.high >= dsm::kPageSize)
          continue;
        known.faults += each.faults;
        known.users.push_back(each);
      }
    }
  }
  std::vector<FoughtPage> sorted;
  for (auto& [gfn, page] : by_gfn) {
    std::set<std::string> hosts;
    for (const PageUser& user : page.users) hosts.insert(vcpu_hosts[user.vcpu]);
    if (hosts.size() < 2) continue;
    std::stable_sort(page.users.begin(), page.users.end(),
                     [](const PageUser& a, const PageUser& b) { return a.faults > b.faults; });
    sorted.push_back(std::move(page));
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const FoughtPage& a, const FoughtPage& b) { return a.faults > b.faults; });
  return sorted;
}

// How often vCPU i takes a page from vCPU j, as far as the known pages tell: from those of other
// hosts, as often as they fault on it themselves.
Shares shares_of(const std::vector<FoughtPage>& pages, const std::vector<std::string>& vcpu_hosts) {
  Shares shares;
  for (const FoughtPage& page : pages) {
    std::map<std::size_t, double> faults;
    std::map<std::string, double> on_host;
    double all = 0;
    for (const PageUser& user : page.users) {
      const auto count = static_cast<double>(user.faults);
      faults[user.vcpu] += count;
      on_host[vcpu_hosts[user.vcpu]] += count;
      all += count;
    }
    for (const auto& [i, own] : faults) {
      const double others = all - on_host[vcpu_hosts[i]];
      for (const auto& [j, theirs] : faults)
        if (vcpu_hosts[i] != vcpu_hosts[j]) shares[i][j] += own * theirs / others;
    }
  }
  return shares;
}

// Shares the faults of one vCPU on one host's pages out among that host's vCPUs.
void share_out(std::uint64_t faults, const std::vector<std::size_t>& givers,
               const std::map<std::size_t, double>& shares,
               std::map<std::size_t, std::uint64_t>& row) {
  const auto share = [&](std::size_t vcpu) {
    const auto found = shares.find(vcpu);
    return found == shares.end() ? 0.0 : found->second;
  };
  double all = 0;
  for (const std::size_t giver : givers) all += share(giver);
  // Running sums are rounded, so that the parts add up to the whole.
  double sum = 0;
  std::uint64_t given = 0;
  for (const std::size_t giver : givers) {
    sum += all > 0 ? share(giver) / all : 1.0 / static_cast<double>(givers.size());
    const auto upto = std::min(
        faults, static_cast<std::uint64_t>(std::llround(sum * static_cast<double>(faults))));
    if (upto > given) row[giver] += upto - given;
    given = std::max(given, upto);
  }
}

Json row_json(const std::map<std::size_t, std::uint64_t>& row) {
  std::vector<std::pair<std::size_t, std::uint64_t>> columns(row.begin(), row.end());
  if (columns.size() > kMatrixColumns) {
    std::stable_sort(columns.begin(), columns.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    columns.resize(kMatrixColumns);
  }
  Json out = Json::object();
  for (const auto& [vcpu, faults] : columns) out[std::to_string(vcpu)] = faults;
  return out;
}

std::size_t named_users(const FoughtPage& page) {
  return std::min(page.users.size(), kUsersOfPage);
}

}  // namespace

DomainSharing merge_sharing(const std::map<std::string, Json>& by_host,
                            const std::vector<std::string>& vcpu_hosts) {
  DomainSharing sharing;
  sharing.pages = merge_pages(by_host, vcpu_hosts);
  Shares shares = shares_of(sharing.pages, vcpu_hosts);
  std::map<std::string, std::vector<std::size_t>> vcpus_of;
  for (std::size_t vcpu = 0; vcpu < vcpu_hosts.size(); ++vcpu)
    vcpus_of[vcpu_hosts[vcpu]].push_back(vcpu);
  for (const auto& [host, stats] : by_host) {
    const Json* own = object_field(stats, "sharing");
    const Json* taken = own == nullptr ? nullptr : array_field(*own, "taken");
    if (taken == nullptr) continue;
    sharing.seconds =
        std::max(sharing.seconds, static_cast<double>(number_or(*own, "ms", 0)) / 1000);
    for (const Json& each : *taken) {
      const std::uint64_t vcpu = number_or(each, "vcpu", vcpu_hosts.size());
      const std::string from = text_or(each, "from", "");
      const std::uint64_t faults = number_or(each, "faults", 0);
      const auto givers = vcpus_of.find(from);
      if (vcpu >= vcpu_hosts.size() || vcpu_hosts[vcpu] != host || from == host ||
          givers == vcpus_of.end() || faults == 0 || faults > kMostFaults)
        continue;
      sharing.hosts[host][from] += faults;
      share_out(faults, givers->second, shares[vcpu], sharing.vcpus[vcpu]);
    }
  }
  if (sharing.pages.size() > kFoughtPages) sharing.pages.resize(kFoughtPages);
  return sharing;
}

std::vector<std::uint64_t> bytes_to_name(const DomainSharing& sharing) {
  std::vector<std::uint64_t> bytes;
  for (const FoughtPage& page : sharing.pages)
    for (std::size_t i = 0; i < named_users(page); ++i)
      bytes.push_back(page.gfn * dsm::kPageSize + page.users[i].low);
  return bytes;
}

Json sharing_json(const DomainSharing& sharing, const std::vector<std::string>& vcpu_hosts,
                  const std::vector<std::string>& names) {
  Json vcpus = Json::object();
  for (const auto& [vcpu, row] : sharing.vcpus) vcpus[std::to_string(vcpu)] = row_json(row);
  Json pages = Json::array();
  std::size_t next = 0;
  for (const FoughtPage& page : sharing.pages) {
    Json users = Json::array();
    for (std::size_t i = 0; i < named_users(page); ++i, ++next) {
      const PageUser& user = page.users[i];
      users.push_back({{"vcpu", user.vcpu},
                       {"host", vcpu_hosts[user.vcpu]},
                       {"low", user.low},
                       {"high", user.high},
                       {"writes", user.writes},
                       {"faults", user.faults},
                       {"name", next < names.size() ? names[next] : ""}});
    }
    pages.push_back({{"gfn", page.gfn}, {"faults", page.faults}, {"users", users}});
  }
  return Json{
      {"seconds", sharing.seconds}, {"vcpus", vcpus}, {"hosts", sharing.hosts}, {"pages", pages}};
}

}  // namespace xenspan::daemon
