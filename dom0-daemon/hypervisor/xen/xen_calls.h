// Xen's libraries behind one class: libxenctrl, libxenforeignmemory, libxenevtchn,
// libxendevicemodel.
//
// The one file that knows these libraries and their versions; nothing else in the house includes
// their headers. Two kinds of calls: those that set up return a Status whose sentence names domain
// and remedy; those of the fault path return 0 or an errno and allocate nothing of ours. Threading:
// any thread (libxenctrl's handles are reentrant); EventChannel belongs to one thread. Ownership:
// a XenCalls owns its handles; a MonitorPage is given back with disable_monitor(). After fork() a
// child must open its own.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/types.h"

namespace xenspan::hypervisor::xen {

class XenCalls {
 public:
  // EACCES, ENOENT ..: this is no Dom0.
  static Result<std::unique_ptr<XenCalls>> open();
  ~XenCalls();

  Result<HostFacts> host() const;
  Result<DomainFacts> domain(DomainId id) const;
  // All domains but this one, ascending.
  Result<std::vector<DomainFacts>> domains() const;
  // Bit N: vCPU N has been started, by the guest or by set_context().
  Result<std::uint64_t> vcpus_up(DomainId id, unsigned vcpus) const;
  // As if the guest had asked for it; `xl` does then what its file says.
  Status shut_down(DomainId id, unsigned reason);

  // Counted by Xen: a domain runs when every pause has been undone.
  Status pause(DomainId id);
  Status unpause(DomainId id);
  // The vCPU is down, as one that the guest has not started: it loses its state, has no context and
  // runs again when set_context() gives it one. The domain should be paused.
  Status take_down(DomainId id, unsigned vcpu);
  // Hard affinity, which `xl vcpu-list` shows.
  Status pin_vcpu(DomainId id, unsigned vcpu, std::span<const unsigned> cpus);

  // All HVM save records of a domain; it should be paused.
  Result<std::vector<std::byte>> context(DomainId id) const;
  // The same in two steps: a place that is large enough, as long as no vCPU is added; and one call
  // of Xen and nothing else, which returns how many bytes of the place it has filled.
  Result<std::vector<std::byte>> room_for_context(DomainId id) const;
  Result<std::size_t> read_context(DomainId id, std::span<std::byte> room) const;
  // Loads a set of records, which need not be whole. Xen pauses the domain for it. A vCPU that was
  // down is up afterwards.
  Status set_context(DomainId id, std::span<const std::byte> records);
  Result<unsigned> tsc_khz(DomainId id) const;  // of the guest

  // --- memory; 0 or an errno
  // Only gfns that are populated: a range with a hole fails (ESRCH). ENODEV, EOPNOTSUPP: this
  // machine has no mem_access.
  int set_access(DomainId id, dsm::Gfn first, std::uint32_t count, Access access) noexcept;
  // Several gfns, each with its right, and one flush of the second-level page tables. `wanted` is
  // overwritten. count <= kMostAccesses.
  static constexpr std::uint32_t kMostAccesses = 64;
  int set_access_of(DomainId id, const dsm::Gfn* gfns, const Access* wanted,
                    std::uint32_t count) noexcept;
  // What the guest may do to a page. Nothing where no page is.
  Access access_of(DomainId id, dsm::Gfn gfn) const noexcept;
  // Of pages that are populated from now on.
  int set_default_access(DomainId id, Access access) noexcept;
  // Maps the page at `at`, in place of what is mapped there. Populates an on-demand entry.
  int map(DomainId id, dsm::Gfn gfn, std::byte* at) noexcept;
  // The same for several pages, to be read only; each of those that cannot be mapped leaves its
  // errno. count <= kMostAccesses.
  int map_to_read(DomainId id, dsm::Gfn first, std::uint32_t count, std::byte* at,
                  int* errors) noexcept;
  // Pages that Xen's tools share with the domain, and shared_info, wherever they are.
  Result<std::vector<HomePage>> shared_pages(DomainId id) const;
  // Marks gfns as populate-on-demand, one by one, each an entry of its own (EBUSY: one of them is
  // populated).
  int mark_on_demand(DomainId id, const dsm::Gfn* gfns, std::uint32_t count) noexcept;
  // Takes pages away from a domain. count <= kMostAccesses, as above.
  int give_back(DomainId id, const dsm::Gfn* gfns, std::uint32_t count) noexcept;
  int on_demand(DomainId id, OnDemandFacts& facts) const noexcept;
  // How much memory Xen gives the domain at most; xl sets it to the file's `memory`.
  int set_most_pages(DomainId id, std::uint64_t pages) noexcept;
  int set_on_demand_target(DomainId id, std::uint64_t pages) noexcept;
  Result<dsm::Gfn> highest_gfn(DomainId id) const;

  // --- events
  struct MonitorPage {
    void* page = nullptr;
    std::uint32_t port = 0;
  };
  Result<MonitorPage> enable_monitor(DomainId id);
  Status disable_monitor(DomainId id, MonitorPage page);
  // Without it Xen resets a page to all rights when nobody listens: a write would be lost silently.
  Status require_listener(DomainId id, bool required);
  Status watch_msr(DomainId id, std::uint32_t msr, bool on);

  // Fixed delivery of `vector` to the vCPU with this APIC id. 0 or an errno.
  int inject_interrupt(DomainId id, std::uint8_t apic_id, std::uint8_t vector) noexcept;

 private:
  struct Handles;
  explicit XenCalls(std::unique_ptr<Handles> handles);
  std::unique_ptr<Handles> handles_;
};

// One end of an event channel between this Dom0 and a domain. Belongs to one thread.
class EventChannel {
 public:
  static Result<EventChannel> bind(DomainId id, std::uint32_t remote_port);
  EventChannel(EventChannel&&) noexcept;
  EventChannel& operator=(EventChannel&&) noexcept;
  ~EventChannel();

  int fd() const;  // readable when something has happened
  // Takes what has happened, so that fd() tells of the next. false: nothing had.
  bool take() noexcept;
  int notify() noexcept;

 private:
  struct Handle;
  explicit EventChannel(std::unique_ptr<Handle> handle);
  std::unique_ptr<Handle> handle_;
};

}  // namespace xenspan::hypervisor::xen
