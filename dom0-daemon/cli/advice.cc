#include "dom0-daemon/cli/advice.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "dsm-rdma/types.h"

namespace xenspan::cli {
namespace {

using daemon::array_field;
using daemon::number_or;
using daemon::object_field;
using daemon::text_or;

constexpr std::size_t kMaxVcpus = 1024;
constexpr std::size_t kPairs = 10, kPages = 10;
// Parts of a whole that are worth a word: one in so many faults.
constexpr std::uint64_t kPairShare = 20, kPageShare = 50, kPlaceShare = 50, kMoveShare = 100,
                        kAllocatorShare = 10;
constexpr std::uint64_t kFewest = 32;  // faults; below that everything is chance
constexpr std::uint64_t kMostFaults = std::uint64_t{1} << 48;
constexpr std::uint64_t kWord = 8;  // bytes that count as touched together

std::optional<std::size_t> number_of(const std::string& text, std::size_t limit) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number >= limit) return {};
  return number;
}

bool read_placement(const Json& stats, Advice& advice) {
  const auto placement = daemon::texts_field(stats, "placement");
  if (!placement || placement->empty() || placement->size() > kMaxVcpus) return false;
  std::map<std::string, std::size_t> known;
  const auto index_of = [&](const std::string& host) {
    const auto [found, fresh] = known.emplace(host, advice.hosts.size());
    if (fresh) advice.hosts.push_back(host);
    return found->second;
  };
  for (const std::string& host : *placement) advice.vcpu_hosts.push_back(index_of(host));
  return true;
}

void read_matrices(const Json& sharing, Advice& advice) {
  const std::size_t vcpus = advice.vcpu_hosts.size();
  advice.vcpus.assign(vcpus, std::vector<std::uint64_t>(vcpus));
  advice.host_takes.assign(advice.hosts.size(), std::vector<std::uint64_t>(advice.hosts.size()));
  const auto each_cell = [](const Json* matrix, auto row_index, auto& into) {
    if (matrix == nullptr) return;
    for (const auto& [row, columns] : matrix->items()) {
      const auto i = row_index(row);
      if (!i || !columns.is_object()) continue;
      for (const auto& [column, value] : columns.items()) {
        const auto j = row_index(column);
        const auto faults = daemon::whole_number(value);
        if (j && *i != *j && faults && *faults <= kMostFaults) into[*i][*j] = *faults;
      }
    }
  };
  each_cell(
      object_field(sharing, "vcpus"),
      [&](const std::string& text) { return number_of(text, vcpus); }, advice.vcpus);
  each_cell(
      object_field(sharing, "hosts"),
      [&](const std::string& text) -> std::optional<std::size_t> {
        const auto found = std::find(advice.hosts.begin(), advice.hosts.end(), text);
        if (found == advice.hosts.end()) return {};
        return static_cast<std::size_t>(found - advice.hosts.begin());
      },
      advice.host_takes);
  for (const auto& row : advice.host_takes)
    advice.faults = std::accumulate(row.begin(), row.end(), advice.faults);
}

void find_pairs(Advice& advice) {
  for (std::size_t i = 0; i < advice.vcpus.size(); ++i)
    for (std::size_t j = i + 1; j < advice.vcpus.size(); ++j) {
      const std::uint64_t faults = advice.vcpus[i][j] + advice.vcpus[j][i];
      if (advice.vcpu_hosts[i] != advice.vcpu_hosts[j] && faults >= kFewest &&
          faults * kPairShare >= advice.faults)
        advice.pairs.push_back({i, j, faults});
    }
  std::stable_sort(
      advice.pairs.begin(), advice.pairs.end(),
      [](const Advice::Pair& a, const Advice::Pair& b) { return a.faults > b.faults; });
  if (advice.pairs.size() > kPairs) advice.pairs.resize(kPairs);
}

// vCPU 0 stays: the program's first thread, whose files and terminal are at the home.
void find_grouping(const Json& stats, Advice& advice) {
  daemon::AffinityProblem problem;
  problem.takes = advice.vcpus;
  for (const std::size_t host : advice.vcpu_hosts) problem.host.push_back(static_cast<int>(host));
  const Json* cores = object_field(stats, "cores");
  for (const std::string& host : advice.hosts)
    problem.room.push_back(cores == nullptr ? 0
                                            : static_cast<int>(std::min<std::uint64_t>(
                                                  number_or(*cores, host.c_str(), 0), kMaxVcpus)));
  problem.fixed.assign(advice.vcpu_hosts.size(), false);
  problem.fixed.front() = true;
  problem.price = std::max(advice.faults / kMoveShare, kFewest);
  advice.grouping = daemon::group_vcpus(problem);
}

bool overlap(const Place& a, const Place& b) {
  return a.low / kWord <= b.high / kWord && b.low / kWord <= a.high / kWord;
}

// Places of one part overlap, or belong to the same vCPU.
std::vector<std::vector<Place>> parts_of(std::vector<Place> places) {
  std::vector<std::vector<Place>> parts;
  for (Place& place : places) {
    std::vector<Place> joined{std::move(place)};
    for (auto part = parts.begin(); part != parts.end();) {
      const bool belongs = std::any_of(part->begin(), part->end(), [&](const Place& other) {
        return std::any_of(joined.begin(), joined.end(), [&](const Place& own) {
          return overlap(own, other) || own.vcpus == other.vcpus;
        });
      });
      if (!belongs) {
        ++part;
        continue;
      }
      joined.insert(joined.end(), part->begin(), part->end());
      part = parts.erase(part);
    }
    parts.push_back(std::move(joined));
  }
  return parts;
}

// The same bytes touched by several vCPUs are one place.
void unite(std::vector<Place>& part) {
  std::sort(part.begin(), part.end(), [](const Place& a, const Place& b) {
    return std::tie(a.low, a.high, a.vcpus) < std::tie(b.low, b.high, b.vcpus);
  });
  std::vector<Place> united;
  for (Place& place : part) {
    if (united.empty() || united.back().low != place.low || united.back().high != place.high) {
      united.push_back(std::move(place));
      continue;
    }
    Place& known = united.back();
    known.vcpus.insert(known.vcpus.end(), place.vcpus.begin(), place.vcpus.end());
    known.writes = known.writes || place.writes;
    known.faults += place.faults;
  }
  part = std::move(united);
}

// By what it is named after: the heap, or the first page of an arena of glibc's malloc, which is a
// mapping at a multiple of 64 MiB (HEAP_MAX_SIZE in malloc/arena.c).
bool is_of_allocator(const std::string& name) {
  constexpr std::string_view kHeap = "[heap]", kMapping = "[anon 0x";
  constexpr std::uint64_t kArenaAlign = 64 << 20;
  if (name.starts_with(kHeap)) return true;
  if (!name.starts_with(kMapping)) return false;
  const char* const from = name.data() + kMapping.size();
  const char* const end = name.data() + name.size();
  std::uint64_t base = 0, offset = 0;
  const auto [rest, error] = std::from_chars(from, end, base, 16);
  if (error != std::errc{} || base % kArenaAlign != 0) return false;
  if (constexpr std::string_view kPlus = "]+0x"; std::string_view(rest, end).starts_with(kPlus))
    std::from_chars(rest + kPlus.size(), end, offset, 16);
  return offset < dsm::kPageSize;
}

void read_page(const Json& page, Advice& advice) {
  const auto gfn = daemon::number_field(page, "gfn");
  const Json* users = array_field(page, "users");
  Advice::Page found{gfn.value_or(0), number_or(page, "faults", 0), {}};
  if (!gfn || users == nullptr || found.faults < kFewest ||
      found.faults < advice.faults / kPageShare || found.faults > kMostFaults)
    return;
  std::vector<Place> places;
  std::set<std::size_t> hosts;
  bool writes = false;
  for (const Json& user : *users) {
    Place place{{number_or(user, "vcpu", kMaxVcpus)},
                number_or(user, "low", 0),
                number_or(user, "high", dsm::kPageSize),
                daemon::flag_field(user, "writes"),
                number_or(user, "faults", 0),
                text_or(user, "name", "")};
    if (place.vcpus[0] >= advice.vcpu_hosts.size() || place.low > place.high ||
        place.high >= dsm::kPageSize || place.faults > kMostFaults ||
        place.faults * kPlaceShare < found.faults)
      continue;
    hosts.insert(advice.vcpu_hosts[place.vcpus[0]]);
    writes = writes || place.writes;
    places.push_back(std::move(place));
  }
  if (hosts.size() < 2 || !writes) return;
  found.parts = parts_of(std::move(places));
  for (auto& part : found.parts) unite(part);
  std::sort(found.parts.begin(), found.parts.end(),
            [](const auto& a, const auto& b) { return a.front().low < b.front().low; });
  const std::string& name = found.parts.front().front().name;
  if (is_of_allocator(name)) advice.allocator_faults += found.faults;
  auto& list = found.parts.size() > 1 ? advice.to_pad : advice.shared;
  if (list.size() < kPages) list.push_back(std::move(found));
}

Json place_json(const Place& place) {
  return Json{{"vcpus", place.vcpus},   {"low", place.low},       {"high", place.high},
              {"writes", place.writes}, {"faults", place.faults}, {"name", place.name}};
}

Json page_json(const Advice::Page& page, bool pad) {
  Json parts = Json::array();
  for (const auto& part : page.parts) {
    Json places = Json::array();
    for (const Place& place : part) places.push_back(place_json(place));
    parts.push_back(std::move(places));
  }
  Json out{{"gfn", page.gfn}, {"faults", page.faults}};
  if (pad) {
    out["align"] = dsm::kPageSize;
    out["parts"] = parts;
  } else {
    out["places"] = parts.front();
  }
  return out;
}

}  // namespace

bool Advice::moves() const {
  for (std::size_t i = 0; i < vcpu_hosts.size(); ++i)
    if (grouping.host[i] != static_cast<int>(vcpu_hosts[i])) return true;
  return false;
}

bool Advice::allocator_matters() const { return allocator_faults * kAllocatorShare > faults; }

Result<Advice> advice_from(const Json& stats) {
  const Json* sharing = object_field(stats, "sharing");
  Advice advice;
  if (sharing == nullptr || !read_placement(stats, advice))
    return Error{EBADMSG,
                 "these are no statistics of a domain with `sharing` and `placement` in them: take "
                 "what `xenspan stats` or `xenspan run --stats=FILE` of this version writes"};
  advice.domain = text_or(stats, "name", "?");
  if (const auto seconds = sharing->find("seconds");
      seconds != sharing->end() && seconds->is_number())
    advice.seconds = std::max(0.0, seconds->get<double>());
  read_matrices(*sharing, advice);
  find_pairs(advice);
  find_grouping(stats, advice);
  if (const Json* pages = array_field(*sharing, "pages"))
    for (const Json& page : *pages)
      if (page.is_object()) read_page(page, advice);
  return advice;
}

Json to_json(const Advice& advice) {
  Json pairs = Json::array();
  for (const Advice::Pair& pair : advice.pairs)
    pairs.push_back({{"vcpus", {pair.first, pair.second}}, {"faults", pair.faults}});
  Json groups = Json::object(), moves = Json::array();
  for (const std::string& host : advice.hosts) groups[host] = Json::array();
  for (std::size_t i = 0; i < advice.vcpu_hosts.size(); ++i) {
    const std::string& from = advice.hosts[advice.vcpu_hosts[i]];
    const std::string& to = advice.hosts[static_cast<std::size_t>(advice.grouping.host[i])];
    groups[to].push_back(i);
    if (from != to) moves.push_back({{"vcpu", i}, {"from", from}, {"to", to}});
  }
  Json to_pad = Json::array(), shared = Json::array();
  for (const auto& page : advice.to_pad) to_pad.push_back(page_json(page, true));
  for (const auto& page : advice.shared) shared.push_back(page_json(page, false));
  return Json{{"domain", advice.domain},
              {"seconds", advice.seconds},
              {"faults", advice.faults},
              {"pairs", pairs},
              {"placement",
               {{"hosts", groups},
                {"moves", moves},
                {"faults_now", advice.grouping.before},
                {"faults_then", advice.grouping.after}}},
              {"pad", to_pad},
              {"shared", shared},
              {"allocator",
               {{"faults", advice.allocator_faults}, {"matters", advice.allocator_matters()}}}};
}

}  // namespace xenspan::cli
