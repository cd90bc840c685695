// Real engines over the simulated network, and guests whose page rights are kept in software.
//
// A Slice is one host: engine, service thread, frames. Its guest is whatever threads call access():
// like a memory unit, access() either has the right and takes place, or it has not and the caller
// faults (Engine::acquire) and tries again. access() and the engine's changes of a mapping exclude
// each other per page, as hardware and TLB flush do.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "dsm-rdma/engine.h"
#include "dsm-rdma/transport/sim/sim_network.h"
#include "tests/sim/history.h"

namespace xenspan::dsm::sim {

class Slice;

// All slices of one domain. Notes a violation of I1 when a right is granted beside one that forbids
// it.
class Domain {
 public:
  struct Config {
    unsigned hosts = 3;
    Gfn pages = 8;
    std::uint64_t seed = 1;
    unsigned max_delay_us = 30;
    bool keeps_mappings = false;  // a deliberate error of host 1's backend: withdraw() does nothing
  };
  explicit Domain(const Config& config);
  ~Domain();

  Slice& slice(unsigned host) { return *slices_[host]; }
  Network& network() { return network_; }
  const Config& config() const { return config_; }
  Value new_value() { return ++last_value_; }
  std::uint64_t violations() const { return violations_; }
  void check_grant(HostId host, Gfn gfn, Right right);

 private:
  Config config_;
  Network network_;
  std::atomic<Value> last_value_{0};
  std::atomic<std::uint64_t> violations_{0};
  std::vector<std::unique_ptr<Slice>> slices_;
};

class Slice final : public PageBackend {
 public:
  Slice(Domain& domain, HostId self);
  ~Slice() override;
  bool create_engine();
  Engine& engine() { return *engine_; }
  Right mapped(Gfn gfn) const { return pages_[gfn].mapped; }

  // One guest access. false: no right, nothing happened. A write stores a new value of the domain.
  // The value is kept at both ends of the page; ends that differ are a torn page, returned as ~0.
  bool access(Gfn gfn, bool write, Value& value);

  std::byte* frame(Gfn gfn) noexcept override { return frames_.get() + gfn * kPageSize; }
  int grant(Gfn first, std::uint32_t count, Right right) noexcept override;
  int protect(Gfn gfn) noexcept override;
  int withdraw(Gfn gfn) noexcept override;
  int drop_frame(Gfn gfn) noexcept override;
  Run fault_around(Gfn gfn) noexcept override;
  bool may_prefetch(Gfn, Right) const noexcept override { return true; }

 private:
  struct Page {
    std::mutex unit;
    std::atomic<Right> mapped{Right::kInvalid};
  };
  Domain& domain_;
  const HostId self_;
  std::unique_ptr<std::byte[]> frames_;
  std::unique_ptr<Page[]> pages_;
  std::unique_ptr<Engine> engine_;
  std::thread service_;
};

}  // namespace xenspan::dsm::sim
