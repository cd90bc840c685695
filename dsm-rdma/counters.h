// The engine's counters: relaxed atomics, written on the fault path, read by stats(). Any thread.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "dsm-rdma/engine.h"

namespace xenspan::dsm {

class Counter {
 public:
  void add(std::uint64_t amount = 1) noexcept {
    value_.fetch_add(amount, std::memory_order_relaxed);
  }
  void reset() noexcept { value_.store(0, std::memory_order_relaxed); }
  std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

struct Counters {
  static constexpr std::size_t kKinds = static_cast<std::size_t>(FaultKind::kCount);
  static constexpr std::size_t kBuckets = std::tuple_size_v<decltype(LatencyHistogram::buckets)>;
  std::array<Counter, kKinds> faults;
  std::array<std::array<Counter, kBuckets>, kKinds> latency;
  Counter served_reads, served_writes, invalidations, zero_grants, held_back, remaps, batches,
      prefetched, prefetch_sampled, prefetch_used, migratory;

  void fault(FaultKind kind, std::uint64_t ns) noexcept {
    const auto row = static_cast<std::size_t>(kind);
    const std::size_t bucket = ns == 0 ? 0 : static_cast<std::size_t>(std::bit_width(ns)) - 1;
    faults[row].add();
    latency[row][bucket < kBuckets ? bucket : kBuckets - 1].add();
  }
};

}  // namespace xenspan::dsm
