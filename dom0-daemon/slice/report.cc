#include "dom0-daemon/slice/report.h"

#include <sys/resource.h>

namespace xenspan::slice {
namespace {

using dsm::FaultKind;
using nlohmann::json;

std::uint64_t count_of(const dsm::EngineStats& stats, FaultKind kind) {
  return stats.faults[static_cast<std::size_t>(kind)];
}

// Lower edge of the bucket in which the given share of all latencies is reached, ns.
std::uint64_t percentile(const dsm::LatencyHistogram& histogram, double share) {
  std::uint64_t total = 0;
  for (const auto count : histogram.buckets) total += count;
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < histogram.buckets.size(); ++i) {
    seen += histogram.buckets[i];
    if (total > 0 && static_cast<double>(seen) >= share * static_cast<double>(total))
      return std::uint64_t{1} << i;
  }
  return 0;
}

// Upper edge of the highest bucket in use, ns.
std::uint64_t highest(const dsm::LatencyHistogram& histogram) {
  std::size_t used = histogram.buckets.size();
  while (used > 0 && histogram.buckets[used - 1] == 0) --used;
  return used > 0 ? std::uint64_t{1} << used : 0;
}

json fault_json(const dsm::EngineStats& stats, FaultKind kind) {
  const auto& histogram = stats.latency[static_cast<std::size_t>(kind)];
  json buckets = json::array();
  for (std::size_t i = 0; i < histogram.buckets.size(); ++i)
    if (histogram.buckets[i] != 0) buckets.push_back({std::uint64_t{1} << i, histogram.buckets[i]});
  return {{"count", count_of(stats, kind)},
          {"latency_ns",
           {{"p50", percentile(histogram, 0.5)},
            {"p99", percentile(histogram, 0.99)},
            {"max", highest(histogram)},
            {"histogram", std::move(buckets)}}}};
}

// As many as a `stats` packet has room for; those that matter are on every slice's list.
constexpr std::size_t kSharedPages = 256;

json sharing_json(const hypervisor::usermode::Slice& slice) {
  const auto sharing = slice.sharing(kSharedPages);
  const auto& hosts = slice.config().hosts;
  json taken = json::array();
  for (const auto& each : sharing.taken)
    if (each.from < hosts.size())
      taken.push_back({{"vcpu", each.vcpu}, {"from", hosts[each.from]}, {"faults", each.faults}});
  json pages = json::array();
  for (const auto& page : sharing.pages) {
    json users = json::array();
    for (const auto& user : page.users)
      users.push_back({{"vcpu", user.vcpu},
                       {"low", user.low},
                       {"high", user.high},
                       {"writes", user.writes},
                       {"faults", user.faults}});
    pages.push_back({{"gfn", page.gfn}, {"users", std::move(users)}});
  }
  return {{"ms", static_cast<std::uint64_t>(sharing.seconds * 1000)},
          {"taken", std::move(taken)},
          {"pages", std::move(pages)}};
}

}  // namespace

json engine_counters(const dsm::EngineStats& stats) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto microseconds = [](const timeval& time) {
    return std::uint64_t(time.tv_sec) * 1'000'000 + std::uint64_t(time.tv_usec);
  };
  return {{"event", "counters"},
          {"faults_read", count_of(stats, FaultKind::kRead)},
          {"faults_write", count_of(stats, FaultKind::kWrite)},
          {"faults_upgrade", count_of(stats, FaultKind::kUpgrade)},
          {"first_touches", count_of(stats, FaultKind::kFirstTouch)},
          {"bytes_sent", stats.traffic.bytes_sent},
          {"bytes_received", stats.traffic.bytes_received},
          {"cpu_us", microseconds(usage.ru_utime) + microseconds(usage.ru_stime)}};
}

json counters_event(hypervisor::usermode::Slice& slice) {
  json event = engine_counters(slice.stats(0));
  event["threads"] = slice.threads_here();
  event["pages"] = slice.frames_bytes() / dsm::kPageSize;
  // Only the home knows the threads of all vCPUs.
  if (slice.home() != nullptr) {
    std::vector<std::uint32_t> on(slice.places().size());
    for (const auto& thread : slice.home()->threads()) ++on[thread.vcpu];
    event["vcpu_threads"] = on;
  }
  return event;
}

json engine_stats(const dsm::EngineStats& stats) {
  json hot = json::array();
  for (const auto& page : stats.hottest)
    hot.push_back({{"gfn", page.gfn}, {"faults", page.faults}});
  return {{"event", "stats"},
          {"faults",
           {{"first_touch", fault_json(stats, FaultKind::kFirstTouch)},
            {"read", fault_json(stats, FaultKind::kRead)},
            {"write", fault_json(stats, FaultKind::kWrite)},
            {"upgrade", fault_json(stats, FaultKind::kUpgrade)}}},
          {"served",
           {{"reads", stats.served_reads},
            {"writes", stats.served_writes},
            {"invalidations", stats.invalidations}}},
          {"bytes_sent", stats.traffic.bytes_sent},
          {"bytes_received", stats.traffic.bytes_received},
          {"messages_sent", stats.traffic.messages_sent},
          {"messages_received", stats.traffic.messages_received},
          {"pages_sent", stats.traffic.pages_sent},
          {"pages_received", stats.traffic.pages_received},
          {"zero_grants", stats.zero_grants},
          {"held_back", stats.held_back},
          {"batches", stats.batches},
          {"prefetched", stats.prefetched},
          {"prefetch_sampled", stats.prefetch_sampled},
          {"prefetch_used", stats.prefetch_used},
          {"migratory", stats.migratory},
          {"hottest", std::move(hot)},
          {"pages_touched", stats.pages_touched},
          {"table_bytes", stats.table_bytes},
          {"engine_bytes", stats.engine_bytes}};
}

json stats_event(hypervisor::usermode::Slice& slice, std::size_t hottest, const json& id) {
  json event = engine_stats(slice.stats(hottest));
  json threads = json::array();
  if (slice.home() != nullptr)
    for (const auto& thread : slice.home()->threads())
      threads.push_back({{"tid", thread.tid},
                         {"vcpu", thread.vcpu},
                         {"host", slice.config().hosts[thread.host]},
                         {"state", thread.state}});
  event["id"] = id;
  event["host"] = slice.config().hosts[slice.config().self];
  event["sharing"] = sharing_json(slice);
  event["threads"] = std::move(threads);
  event["syscalls"] = {{"local", slice.local_calls.load()}, {"home", slice.home_calls.load()}};
  event["frames_bytes"] = slice.frames_bytes();
  return event;
}

namespace {

// As many ranges as a packet has room for, of three lists.
constexpr std::size_t kMostRuns = 12000;

}  // namespace

json runs_json(const std::vector<dsm::PageRun>& runs, bool& cut) {
  json list = json::array();
  for (const auto& run : runs) {
    if (list.size() == kMostRuns) {
      cut = true;
      break;
    }
    list.push_back({run.first, run.count});
  }
  return list;
}

json holdings_event(hypervisor::usermode::Slice& slice, const json& order) {
  dsm::HostMask lost = 0;
  for (const auto host : order.value("lost", std::vector<dsm::HostId>{}))
    if (host < dsm::kMaxHosts) lost |= dsm::mask_of(host);
  const dsm::Holdings found = slice.engine().holdings(lost);
  bool cut = false;
  json event{{"event", "holdings"},
             {"id", order.value("id", json())},
             {"alone", runs_json(found.alone, cut)},
             {"held", runs_json(found.held, cut)},
             {"gone", slice.is_engine_home() ? runs_json(found.gone, cut) : json::array()}};
  event["cut"] = cut;
  return event;
}

}  // namespace xenspan::slice
