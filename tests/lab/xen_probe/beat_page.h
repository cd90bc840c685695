// The page in which tests/lab/guest/beating_pvh.S says what it has computed, and what it should
// say.
//
// Read from Dom0 through a foreign mapping, while the guest runs or stands. One thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/xen_calls.h"

namespace xenspan::lab {

struct Beat {
  std::uint64_t round = 0, value = 0, ticks = 0, interrupts = 0, sent = 0, tsc = 0;
  std::uint64_t tsc_back = 0, wrong_registers = 0;
  double sse = 0, x87 = 0;
};

// Empty when everything in it is what a processor that has lost nothing computes.
std::string wrong_in(const Beat& beat);

class BeatPage {
 public:
  static Result<std::unique_ptr<BeatPage>> map(hypervisor::xen::XenCalls& xen,
                                               hypervisor::xen::DomainId domain);
  ~BeatPage();

  // Of one round, also while the guest runs.
  Beat read() const;
  std::uint64_t round() const { return load(0); }
  // Asks the guest to send itself so many interrupts.
  void send_interrupts(std::uint64_t count);

 private:
  explicit BeatPage(std::uint64_t* words) : words_(words) {}
  std::uint64_t load(std::size_t index) const {
    return std::atomic_ref(words_[index]).load(std::memory_order_acquire);
  }
  std::uint64_t* words_;
};

}  // namespace xenspan::lab
