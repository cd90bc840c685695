#include "dom0-daemon/daemon/stats_report.h"

#include <algorithm>

#include "dom0-daemon/daemon/sharing_report.h"
#include "dsm-rdma/types.h"

namespace xenspan::daemon {
namespace {

constexpr const char* kKinds[] = {"first_touch", "read", "write", "upgrade"};
constexpr const char* kTotals[] = {
    "bytes_sent",     "bytes_received", "messages_sent", "messages_received", "pages_sent",
    "pages_received", "zero_grants",    "batches",       "prefetched",        "prefetch_sampled",
    "prefetch_used",  "migratory",      "table_bytes",   "engine_bytes",      "frames_bytes"};

using Histogram = std::map<std::uint64_t, std::uint64_t>;

void add_histogram(const Json& latency, Histogram& sum) {
  const Json* buckets = array_field(latency, "histogram");
  if (buckets == nullptr) return;
  for (const Json& bucket : *buckets) {
    if (!bucket.is_array() || bucket.size() != 2) continue;
    const auto from = whole_number(bucket[0]);
    const auto count = whole_number(bucket[1]);
    if (from && count) sum[*from] += *count;
  }
}

// The lower bound of the bucket in which the given share of all faults lies.
std::uint64_t percentile(const Histogram& histogram, double share) {
  std::uint64_t total = 0;
  for (const auto& [from, count] : histogram) total += count;
  const auto rank = static_cast<std::uint64_t>(share * static_cast<double>(total));
  std::uint64_t seen = 0;
  for (const auto& [from, count] : histogram) {
    seen += count;
    if (seen > rank) return from;
  }
  return histogram.empty() ? 0 : histogram.rbegin()->first;
}

Json page_list(const std::vector<HotPage>& pages, const std::vector<std::string>& names) {
  Json list = Json::array();
  for (std::size_t i = 0; i < pages.size(); ++i)
    list.push_back({{"gfn", pages[i].gfn},
                    {"faults", pages[i].faults},
                    {"hosts", pages[i].by_host},
                    {"name", i < names.size() ? names[i] : ""}});
  return list;
}

std::vector<std::string> vcpu_hosts(const DomainRecord& record) {
  std::vector<std::string> hosts;
  for (const DomainVcpu& vcpu : record.vcpus) hosts.push_back(vcpu.host);
  return hosts;
}

}  // namespace

std::vector<HotPage> hottest_pages(const std::map<std::string, Json>& by_host) {
  std::map<std::uint64_t, HotPage> pages;
  for (const auto& [host, stats] : by_host) {
    const Json* hottest = array_field(stats, "hottest");
    if (hottest == nullptr) continue;
    for (const Json& each : *hottest) {
      const auto gfn = number_field(each, "gfn");
      const auto faults = number_field(each, "faults");
      if (!gfn || !faults) continue;
      HotPage& page = pages[*gfn];
      page.gfn = *gfn;
      page.faults += *faults;
      page.by_host[host] += *faults;
    }
  }
  std::vector<HotPage> sorted;
  for (auto& [gfn, page] : pages) sorted.push_back(std::move(page));
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const HotPage& a, const HotPage& b) { return a.faults > b.faults; });
  if (sorted.size() > kHottestPages) sorted.resize(kHottestPages);
  return sorted;
}

Json merge_faults(const std::vector<Json>& parts) {
  std::uint64_t count = 0;
  std::uint64_t highest = 0;
  Histogram histogram;
  for (const Json& part : parts) {
    count += number_or(part, "count", 0);
    const Json* latency = object_field(part, "latency_ns");
    if (latency == nullptr) continue;
    highest = std::max(highest, number_or(*latency, "max", 0));
    add_histogram(*latency, histogram);
  }
  Json buckets = Json::array();
  for (const auto& [from, number] : histogram) buckets.push_back({from, number});
  return Json{{"count", count},
              {"latency_ns",
               {{"p50", percentile(histogram, 0.5)},
                {"p99", percentile(histogram, 0.99)},
                {"max", highest},
                {"histogram", buckets}}}};
}

std::vector<std::uint64_t> bytes_to_name(const DomainRecord& record,
                                         const std::map<std::string, Json>& by_host,
                                         const std::vector<HotPage>& pages) {
  std::vector<std::uint64_t> bytes;
  for (const HotPage& page : pages) bytes.push_back(page.gfn * dsm::kPageSize);
  const auto fought = bytes_to_name(merge_sharing(by_host, vcpu_hosts(record)));
  bytes.insert(bytes.end(), fought.begin(), fought.end());
  return bytes;
}

Json stats_report(const DomainRecord& record, const std::map<std::string, Json>& by_host,
                  const std::vector<HotPage>& pages, const std::vector<std::string>& names) {
  const std::vector<std::string> placement = vcpu_hosts(record);
  const auto fought =
      names.begin() + static_cast<std::ptrdiff_t>(std::min(pages.size(), names.size()));
  Json hosts = Json::object();
  for (const auto& [host, stats] : by_host) {
    hosts[host] = stats;
    for (const char* internal : {"event", "id", "host", "sharing"}) hosts[host].erase(internal);
  }
  Json faults = Json::object();
  for (const char* kind : kKinds) {
    std::vector<Json> parts;
    for (const auto& [host, stats] : by_host) {
      const Json* own = object_field(stats, "faults");
      const Json* of_kind = own == nullptr ? nullptr : object_field(*own, kind);
      if (of_kind != nullptr) parts.push_back(*of_kind);
    }
    faults[kind] = merge_faults(parts);
  }
  Json report{{"domain", record.uuid},
              {"name", record.name},
              {"state", xenstore::to_word(record.state)},
              {"home", record.home},
              {"command", record.command},
              {"vcpus", record.vcpus.size()},
              {"placement", placement},
              {"memory", record.memory},
              {"transport", xenstore::to_word(record.transport)},
              {"created", record.created},
              {"faults", faults},
              {"hottest", page_list(pages, names)},
              {"sharing",
               sharing_json(merge_sharing(by_host, placement), placement, {fought, names.end()})},
              {"hosts", hosts}};
  for (const char* total : kTotals) {
    std::uint64_t sum = 0;
    for (const auto& [host, stats] : by_host) sum += number_or(stats, total, 0);
    report[total] = sum;
  }
  return report;
}

}  // namespace xenspan::daemon
