#include "dsm-rdma/scale/pattern.h"

#include <algorithm>

namespace xenspan::dsm::scale {
namespace {

// kExchange: a block of pages a host, so that one host manages it (slot_table.h).
constexpr unsigned kBlock = 16, kPrivate = 14;  // then the left border, then the right one
constexpr unsigned kReadMostlyPages = 16;

Access exchange(unsigned hosts, HostId host, std::uint64_t count) {
  const auto page_of = [](unsigned owner, unsigned page) { return Gfn{owner} * kBlock + page; };
  const auto round = static_cast<unsigned>(count / 6);
  const unsigned left = (host + hosts - 1) % hosts, right = (host + 1) % hosts;
  switch (count % 6) {
    case 0: return {page_of(host, round % kPrivate), true};
    case 1: return {page_of(host, (round + 7) % kPrivate), false};
    case 2: return {page_of(host, kPrivate), true};
    case 3: return {page_of(host, kPrivate + 1), true};
    case 4: return {page_of(left, kPrivate + 1), false};
    default: return {page_of(right, kPrivate), false};
  }
}

Access all_to_all(unsigned hosts, HostId host, std::uint64_t count) {
  constexpr unsigned kReads = 7;  // between two writes
  if (count % (kReads + 1) == 0) return {host, true};
  const auto turn = static_cast<unsigned>((count - count / (kReads + 1) - 1) % (hosts - 1));
  return {(host + 1 + turn) % hosts, false};
}

}  // namespace

const char* name_of(Pattern pattern) {
  switch (pattern) {
    case Pattern::kExchange: return "exchange";
    case Pattern::kReadMostly: return "read-mostly";
    case Pattern::kMigratory: return "migratory";
    case Pattern::kAllToAll: return "all-to-all";
    case Pattern::kRandom: return "random";
  }
  return "?";
}

Gfn pages_of(Pattern pattern, unsigned hosts) {
  switch (pattern) {
    case Pattern::kExchange: return Gfn{hosts} * kBlock;
    case Pattern::kReadMostly: return kReadMostlyPages;
    case Pattern::kMigratory: return std::max(1u, hosts / 2);
    case Pattern::kAllToAll: return hosts;
    case Pattern::kRandom: return Gfn{hosts} * 4;
  }
  return 0;
}

Access next_access(Pattern pattern, unsigned hosts, HostId host, std::uint64_t count,
                   const Access& before, Random& random) {
  const auto pages = static_cast<unsigned>(pages_of(pattern, hosts));
  switch (pattern) {
    case Pattern::kExchange: return exchange(hosts, host, count);
    // Two reads of a page by each host, on average, for each time that it is written.
    case Pattern::kReadMostly: return {random.below(pages), random.below(2 * hosts) == 0};
    case Pattern::kMigratory:
      return count % 2 == 0 ? Access{random.below(pages), false} : Access{before.gfn, true};
    case Pattern::kAllToAll: return all_to_all(hosts, host, count);
    case Pattern::kRandom: return {random.below(pages), random.below(5) == 0};
  }
  return before;
}

}  // namespace xenspan::dsm::scale
