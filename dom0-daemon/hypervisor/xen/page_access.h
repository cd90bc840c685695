// A slice under Xen as the engine sees it: frames are pages of the domain mapped here, and rights
// are those of Xen's second-level page tables (mem_access).
//
// invalid = none, shared = read and execute, exclusive = all. A page the engine has never filled is
// an entry on demand, which Xen makes a page of zeros when a vCPU or this process touches it; a
// page the engine drops becomes one again, in batches, because no vCPU may run for the moment it
// takes. Threading: as PageBackend. One lock is shared between gfns, around the list of dropped
// pages. Ownership: `pages` is borrowed.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/foreign_window.h"
#include "dom0-daemon/hypervisor/xen/populate.h"
#include "dsm-rdma/page_backend.h"

namespace xenspan::hypervisor::xen {

class PageAccess final : public dsm::PageBackend {
 public:
  struct Config {
    dsm::Gfn count = 0;  // gfns 0 .. count-1
    unsigned vcpus = 1;
    std::uint32_t most_mapped = ForeignWindow::kMostMapped;
    std::uint32_t keep_lost = 1024;  // pages dropped last keep their memory: some will come back
  };
  static Result<std::unique_ptr<PageAccess>> create(GuestPages& pages, const Config& config);
  ~PageAccess() override;

  // Pages the guest has already, with all rights: the home's, when the domain begins to span.
  // Before the engine runs; the engine acquires them before anybody else can.
  void adopt(dsm::Gfn first, dsm::Gfn count) noexcept;

  // Pages on demand can be touched. Before any vCPU runs, and after prepare_on_demand().
  int prime() noexcept { return populate_.prime(); }

  std::byte* frame(dsm::Gfn gfn) noexcept override;
  // A mapping may be replaced once its thread goes on to the next page.
  bool frames_keep_still() const noexcept override { return false; }
  bool keeps_lost_frames() const noexcept override { return false; }
  int grant(dsm::Gfn first, std::uint32_t count, dsm::Right right) noexcept override;
  int protect(dsm::Gfn gfn) noexcept override;
  int withdraw(dsm::Gfn gfn) noexcept override { return withdraw_run(gfn, 1); }
  int withdraw_run(dsm::Gfn first, std::uint32_t count) noexcept override;
  int drop_frame(dsm::Gfn gfn) noexcept override;
  Run fault_around(dsm::Gfn gfn) noexcept override { return {gfn, 1}; }

  dsm::Right right(dsm::Gfn gfn) const noexcept;
  std::uint32_t mapped() const noexcept { return window_->mapped(); }
  // The frame has been filled and no right will follow: it may be unmapped. For tests on machines
  // without mem_access.
  void settle(dsm::Gfn gfn) noexcept { window_->settle(gfn); }
  // Gives back all that has been dropped so far.
  int give_back_dropped() noexcept;

 private:
  // A byte a gfn: where its memory is, and the guest's right.
  enum State : std::uint8_t {
    kOnDemand = 0,  // an entry; reads as zero
    kHeld = 1,      // a page of the domain
    kDropped = 2,   // the same, but its contents count as zero; in the list
    kBusy = 3,      // between two of these, by one thread
    kState = 3,
  };
  static constexpr unsigned kRightShift = 2;
  using Byte = std::atomic<std::uint8_t>;

  PageAccess(GuestPages& pages, const Config& config);
  int hold(dsm::Gfn gfn) noexcept;
  int fill_in(dsm::Gfn gfn, State before) noexcept;
  bool become(dsm::Gfn gfn, State from, State to) noexcept;
  void set_right(dsm::Gfn gfn, dsm::Right right) noexcept;
  State state(dsm::Gfn gfn) const noexcept;
  int give_back_oldest(std::uint32_t most) noexcept;
  int give_back(const dsm::Gfn* gfns, std::uint32_t count) noexcept;

  GuestPages& pages_;
  const dsm::Gfn count_;
  Populate populate_;
  const std::uint32_t batch_;  // pages given back at once: an eighth of what may be mapped, at most
  std::unique_ptr<ForeignWindow> window_;
  Byte* bytes_ = nullptr;  // memory follows use

  // The pages dropped, a ring, oldest first. Nothing is given back with the lock held.
  std::mutex lock_;
  std::vector<dsm::Gfn> dropped_;
  std::size_t oldest_ = 0, listed_ = 0;
};

}  // namespace xenspan::hypervisor::xen
