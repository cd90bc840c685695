// One slice of a spanning domain under Xen: a local domain, its monitor ring, and the threads that
// turn its vCPUs' faults into requests to the engine.
//
// One thread waits for the ring; each vCPU has one that asks the engine for the page and lets the
// vCPU go on. When the engine has stopped, a vCPU that faults stands for ever: nothing becomes
// writable by itself. Interrupts that a vCPU here sends to one elsewhere are handed to the caller.
// Order: create, become_home() or become_remote(), the engine over pages(), start(), stop(). The
// domain is paused until start(). Threading: the calls from one thread, deliver() from any;
// on_interrupt from the ring's thread, or from a call that takes or puts a vCPU. Ownership: `xen`
// and the engine are borrowed.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <semaphore>
#include <thread>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/xen/monitor_ring.h"
#include "dom0-daemon/hypervisor/xen/page_access.h"
#include "dom0-daemon/hypervisor/xen/vcpu_context.h"
#include "dsm-rdma/engine.h"

namespace xenspan::hypervisor::xen {

class Slice {
 public:
  struct Config {
    DomainId domain = 0;
    unsigned vcpus = 1;      // of the guest
    std::uint64_t here = 0;  // bit N: vCPU N runs in this slice, until it is taken
    dsm::Gfn pages = 0;      // gfns 0 .. pages-1 are kept coherent
    std::function<void(unsigned vcpu, std::uint8_t vector)> on_interrupt;
    // What only this slice knows stops the domain; null: the engine is stopped with it. From the
    // ring's thread, and the vCPU that is the cause stands.
    std::function<void(const std::string& cause)> on_stop;
  };
  static Result<std::unique_ptr<Slice>> create(XenCalls& xen, Config config);
  ~Slice();

  // The guest's memory is here, all of it. After the engine was created, which takes it over. Pages
  // of zeros are given back.
  Status become_home(dsm::Engine& engine);
  // The memory is elsewhere: what this domain has is given back, and its vCPUs are taken down.
  Status become_remote();
  dsm::PageBackend& pages() { return *pages_; }
  // Pages that stay home: Xen and Dom0 write to them without asking. become_home() adds those it
  // finds; each other slice has to know them before start(). A vCPU that touches one elsewhere
  // stops the domain with that cause.
  const std::vector<HomePage>& home_pages() const { return home_pages_; }
  void stay_home(std::vector<HomePage> pages) { home_pages_ = std::move(pages); }

  Status start(dsm::Engine& engine);
  // The domain is paused, and every right is left as it is.
  void stop();

  // A vCPU goes to another slice, or comes from one; before start() or after. No interrupt is lost
  // or comes twice: what was sent to it here until now goes along in its state, and what others
  // send to it from before take_vcpu() until it has been put is the caller's to keep, and to
  // deliver() then.
  Result<VcpuContext> take_vcpu(unsigned vcpu);
  Status put_vcpu(const VcpuContext& context, TscFit* fit = nullptr);
  // An interrupt for a vCPU here, sent elsewhere. 0 or an errno.
  int deliver(unsigned vcpu, std::uint8_t vector) noexcept;
  // Returns when no fault is under way. For a slice without vCPUs, before the engine drains.
  void quiet() const noexcept;

  struct Counts {
    std::uint64_t faults = 0, interrupts_sent = 0, elsewhere = 0;
  };
  Counts counts() const;

 private:
  struct Vcpu {
    std::binary_semaphore faulted{0};
    VcpuEvent event;  // the one that is being served
    std::thread server;
  };

  Slice(XenCalls& xen, Config config);
  Status fill_stock();
  void watch();
  int take_events();
  template <typename Change>
  Status between_events(Change&& change);
  bool is_refused(const VcpuEvent& event) noexcept;
  void stop_with(const std::string& cause) noexcept;
  void on_event(const VcpuEvent& event) noexcept;
  void on_interrupt_command(const VcpuEvent& event) noexcept;
  void serve(Vcpu& vcpu) noexcept;

  XenCalls& xen_;
  const Config config_;
  XenGuestPages guest_;
  std::unique_ptr<MonitorRing> ring_;
  std::unique_ptr<PageAccess> pages_;
  bool remote_ = false;
  std::vector<HomePage> home_pages_;  // in order of gfns
  std::mutex events_lock_;            // events are taken; the next two lines
  std::uint64_t here_;
  std::int64_t behind_ = 0;  // ticks that the clocks of the vCPUs here are late, since the last put
  dsm::Engine* engine_ = nullptr;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::thread watcher_;
  UniqueFd wake_;
  std::atomic<bool> ended_{false};
  std::atomic<unsigned> serving_{0};  // faults that are not answered
  std::atomic<std::uint64_t> faults_{0}, interrupts_sent_{0}, elsewhere_{0};
};

}  // namespace xenspan::hypervisor::xen
