#include "dom0-daemon/hypervisor/xen/xen_calls.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

extern "C" {
#include <xenctrl.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xentoollog.h>
}
extern "C" {
#include <xen/hvm/params.h>  // after what it needs
}

namespace xenspan::hypervisor::xen {
namespace {

// The libraries would print what they find wrong; here an error is a value.
void say_nothing(xentoollog_logger*, xentoollog_level, int, const char*, const char*, va_list) {}
void show_nothing(xentoollog_logger*, const char*, const char*, int, unsigned long, unsigned long) {
}
void keep(xentoollog_logger*) {}
xentoollog_logger silent{say_nothing, show_nothing, keep};

template <auto Close>
struct Closer {
  template <typename Handle>
  void operator()(Handle* handle) const {
    Close(handle);
  }
};

constexpr char kNoDom0[] =
    "boot this machine under Xen 4.17 and run as root in Dom0, with /dev/xen there";

Error about(DomainId id, const char* what, const std::string& remedy = {}) {
  const int code = errno;
  if (code == ESRCH) return {code, fmt::format("domain {} is gone: see `xl list`", id)};
  return system_error(code, fmt::format("{} of domain {}", what, id), remedy);
}

int result_of(int returned) { return returned < 0 ? errno : 0; }

xenmem_access_t to_xen(Access access) {
  switch (access) {
    case Access::kNone: return XENMEM_access_n;
    case Access::kReadExecute: return XENMEM_access_rx;
    case Access::kAll: return XENMEM_access_rwx;
  }
  return XENMEM_access_n;
}

}  // namespace

struct XenCalls::Handles {
  std::unique_ptr<xc_interface, Closer<xc_interface_close>> control;
  std::unique_ptr<xenforeignmemory_handle, Closer<xenforeignmemory_close>> memory;
  std::unique_ptr<xendevicemodel_handle, Closer<xendevicemodel_close>> devices;
};

XenCalls::XenCalls(std::unique_ptr<Handles> handles) : handles_(std::move(handles)) {}
XenCalls::~XenCalls() = default;

Result<std::unique_ptr<XenCalls>> XenCalls::open() {
  auto handles = std::make_unique<Handles>();
  handles->control.reset(xc_interface_open(&silent, &silent, 0));
  if (!handles->control) return system_error(errno, "cannot reach Xen", kNoDom0);
  handles->memory.reset(xenforeignmemory_open(&silent, 0));
  if (!handles->memory) return system_error(errno, "cannot map memory of Xen's domains", kNoDom0);
  handles->devices.reset(xendevicemodel_open(&silent, 0));
  if (!handles->devices)
    return system_error(errno, "cannot send interrupts to Xen's domains", kNoDom0);
  return std::unique_ptr<XenCalls>(new XenCalls(std::move(handles)));
}

// Words of Xen's feature bitmap: 1 is CPUID 1 ECX (VMX is bit 5), 3 is CPUID 0x80000001 ECX (SVM is
// bit 2).
Result<HostFacts> XenCalls::host() const {
  xc_physinfo_t found{};
  if (xc_physinfo(handles_->control.get(), &found) != 0)
    return system_error(errno, "Xen does not say what machine this is",
                        "install the libraries of the Xen that is running");
  const int version = xc_version(handles_->control.get(), XENVER_version, nullptr);
  HostFacts facts;
  facts.version_major = static_cast<unsigned>(version) >> 16;
  facts.version_minor = static_cast<unsigned>(version) & 0xffff;
  facts.hvm = (found.capabilities & XEN_SYSCTL_PHYSCAP_hvm) != 0;
  facts.hap = (found.capabilities & XEN_SYSCTL_PHYSCAP_hap) != 0;
  facts.vmx = (found.hw_cap[1] >> 5 & 1) != 0;
  facts.svm = (found.hw_cap[3] >> 2 & 1) != 0;
  facts.cpus = found.nr_cpus;
  facts.free_pages = found.free_pages;
  facts.vm_event_version = xc_vm_event_get_version(handles_->control.get());
  return facts;
}

namespace {

DomainFacts facts_of(const xc_dominfo_t& found) {
  DomainFacts facts;
  facts.id = found.domid;
  std::copy_n(found.handle, facts.uuid.size(), facts.uuid.begin());
  facts.hvm = found.hvm;
  facts.hap = found.hap;
  facts.paused = found.paused;
  facts.dying = found.dying;
  facts.shut_down = found.shutdown || found.crashed;
  facts.shutdown_reason = found.shutdown_reason;
  facts.vcpus = found.max_vcpu_id + 1;
  facts.pages = found.nr_pages;
  facts.max_pages = found.max_memkb / 4;
  return facts;
}

}  // namespace

Result<DomainFacts> XenCalls::domain(DomainId id) const {
  xc_dominfo_t found{};
  if (xc_domain_getinfo(handles_->control.get(), id, 1, &found) != 1 || found.domid != id) {
    errno = ESRCH;
    return about(id, "the state");
  }
  return facts_of(found);
}

Result<std::vector<DomainFacts>> XenCalls::domains() const {
  constexpr unsigned kAtOnce = 64;
  std::vector<DomainFacts> all;
  xc_dominfo_t found[kAtOnce];
  for (std::uint32_t from = 1;;) {
    const int count = xc_domain_getinfo(handles_->control.get(), from, kAtOnce, found);
    if (count < 0 && errno == ESRCH) return all;  // none from there on
    if (count < 0) return system_error(errno, "Xen does not say what domains there are");
    for (int i = 0; i < count; ++i) all.push_back(facts_of(found[i]));
    if (count < static_cast<int>(kAtOnce)) return all;
    from = found[count - 1].domid + 1;
  }
}

Result<std::uint64_t> XenCalls::vcpus_up(DomainId id, unsigned vcpus) const {
  std::uint64_t up = 0;
  for (unsigned vcpu = 0; vcpu < vcpus && vcpu < 64; ++vcpu) {
    xc_vcpuinfo_t found{};
    if (xc_vcpu_getinfo(handles_->control.get(), id, vcpu, &found) != 0)
      return about(id, "the state of a vCPU");
    up |= std::uint64_t{found.online != 0} << vcpu;
  }
  return up;
}

Status XenCalls::shut_down(DomainId id, unsigned reason) {
  if (xc_domain_shutdown(handles_->control.get(), id, static_cast<int>(reason)) != 0)
    return about(id, "cannot shut it down");
  return {};
}

Status XenCalls::pause(DomainId id) {
  if (xc_domain_pause(handles_->control.get(), id) != 0) return about(id, "cannot stop the vCPUs");
  return {};
}

Status XenCalls::unpause(DomainId id) {
  if (xc_domain_unpause(handles_->control.get(), id) != 0)
    return about(id, "cannot let the vCPUs run");
  return {};
}

// No registers: Xen resets the vCPU.
Status XenCalls::take_down(DomainId id, unsigned vcpu) {
  if (xc_vcpu_setcontext(handles_->control.get(), id, vcpu, nullptr) != 0)
    return about(id, fmt::format("cannot take down vCPU {}", vcpu).c_str());
  return {};
}

Status XenCalls::pin_vcpu(DomainId id, unsigned vcpu, std::span<const unsigned> cpus) {
  xc_interface* control = handles_->control.get();
  const int bytes = xc_get_cpumap_size(control);
  const auto map = xc_cpumap_alloc(control);
  if (bytes <= 0 || map == nullptr)
    return system_error(ENOMEM, "no memory for a set of processors");
  int error = 0;
  for (const unsigned cpu : cpus) {
    if (cpu >= static_cast<unsigned>(bytes) * 8) error = EINVAL;
    if (error == 0) xc_cpumap_setcpu(static_cast<int>(cpu), map);
  }
  if (error == 0)
    error = result_of(xc_vcpu_setaffinity(control, id, static_cast<int>(vcpu), map, nullptr,
                                          XEN_VCPUAFFINITY_HARD));
  std::free(map);
  if (error != 0)
    return system_error(error, fmt::format("cannot pin vCPU {} of domain {}", vcpu, id),
                        "name processors of this host: see `xl info`");
  return {};
}

Result<std::vector<std::byte>> XenCalls::room_for_context(DomainId id) const {
  const int size = xc_domain_hvm_getcontext(handles_->control.get(), id, nullptr, 0);
  if (size < 0) return about(id, "no vCPU context", "it has to be a PVH or HVM domain");
  return std::vector<std::byte>(static_cast<std::size_t>(size));
}

Result<std::size_t> XenCalls::read_context(DomainId id, std::span<std::byte> room) const {
  const int filled = xc_domain_hvm_getcontext(handles_->control.get(), id,
                                              reinterpret_cast<std::uint8_t*>(room.data()),
                                              static_cast<unsigned>(room.size()));
  if (filled < 0) return about(id, "no vCPU context");
  return static_cast<std::size_t>(filled);
}

Result<std::vector<std::byte>> XenCalls::context(DomainId id) const {
  auto records = room_for_context(id);
  if (!records) return records;
  const auto filled = read_context(id, *records);
  if (!filled) return filled.error();
  records->resize(*filled);
  return records;
}

Status XenCalls::set_context(DomainId id, std::span<const std::byte> records) {
  std::vector<std::byte> copy(records.begin(), records.end());  // the library wants it writable
  if (xc_domain_hvm_setcontext(handles_->control.get(), id,
                               reinterpret_cast<std::uint8_t*>(copy.data()),
                               static_cast<unsigned>(copy.size())) != 0)
    return about(id, "vCPU context refused",
                 "both slices need the same number of vCPUs, the same CPU features and Xen; "
                 "`xl dmesg` has Xen's reason");
  return {};
}

Result<unsigned> XenCalls::tsc_khz(DomainId id) const {
  std::uint32_t mode = 0, khz = 0, incarnation = 0;
  std::uint64_t elapsed = 0;
  if (xc_domain_get_tsc_info(handles_->control.get(), id, &mode, &elapsed, &khz, &incarnation) != 0)
    return about(id, "no TSC frequency");
  return khz;
}

int XenCalls::set_access(DomainId id, dsm::Gfn first, std::uint32_t count, Access access) noexcept {
  return result_of(xc_set_mem_access(handles_->control.get(), id, to_xen(access), first, count));
}

int XenCalls::set_access_of(DomainId id, const dsm::Gfn* gfns, const Access* wanted,
                            std::uint32_t count) noexcept {
  if (count > kMostAccesses) return E2BIG;
  std::uint8_t access[kMostAccesses];
  std::uint64_t pages[kMostAccesses];
  for (std::uint32_t i = 0; i < count; ++i) {
    access[i] = static_cast<std::uint8_t>(to_xen(wanted[i]));
    pages[i] = gfns[i];
  }
  return result_of(xc_set_mem_access_multi(handles_->control.get(), id, access, pages, count));
}

Access XenCalls::access_of(DomainId id, dsm::Gfn gfn) const noexcept {
  xenmem_access_t found = XENMEM_access_n;
  if (xc_get_mem_access(handles_->control.get(), id, gfn, &found) != 0) return Access::kNone;
  if (found == XENMEM_access_n) return Access::kNone;
  // Rights that this house never gives count as all.
  return found == XENMEM_access_rx ? Access::kReadExecute : Access::kAll;
}

int XenCalls::set_default_access(DomainId id, Access access) noexcept {
  constexpr std::uint64_t kDefault = ~std::uint64_t{0};  // Xen's word for "no gfn: the default"
  return result_of(xc_set_mem_access(handles_->control.get(), id, to_xen(access), kDefault, 0));
}

// The error array keeps the library from taking the place apart when the one page cannot be mapped.
int XenCalls::map(DomainId id, dsm::Gfn gfn, std::byte* at) noexcept {
  const xen_pfn_t page = gfn;
  int error = 0;
  void* mapped = xenforeignmemory_map2(handles_->memory.get(), id, at, PROT_READ | PROT_WRITE,
                                       MAP_SHARED | MAP_FIXED, 1, &page, &error);
  if (mapped == nullptr) return errno;
  return error < 0 ? -error : error;
}

int XenCalls::map_to_read(DomainId id, dsm::Gfn first, std::uint32_t count, std::byte* at,
                          int* errors) noexcept {
  if (count > kMostAccesses) return E2BIG;
  xen_pfn_t pages[kMostAccesses];
  std::iota(pages, pages + count, first);
  void* mapped = xenforeignmemory_map2(handles_->memory.get(), id, at, PROT_READ,
                                       MAP_SHARED | MAP_FIXED, count, pages, errors);
  if (mapped == nullptr) return errno;
  for (std::uint32_t i = 0; i < count; ++i) errors[i] = std::abs(errors[i]);
  return 0;
}

Result<std::vector<HomePage>> XenCalls::shared_pages(DomainId id) const {
  xc_dominfo_t found{};
  if (xc_domain_getinfo(handles_->control.get(), id, 1, &found) != 1 || found.domid != id) {
    errno = ESRCH;
    return about(id, "the state");
  }
  std::vector<HomePage> pages = {{dsm::Gfn{found.shared_info_frame}, "Xen's shared_info"}};
  constexpr struct {
    std::uint32_t number;
    const char* what;
  } kRings[] = {{HVM_PARAM_STORE_PFN, "xenstore's ring"},
                {HVM_PARAM_CONSOLE_PFN, "the console's ring"},
                {HVM_PARAM_IOREQ_PFN, "the device model's ring"},
                {HVM_PARAM_BUFIOREQ_PFN, "the device model's ring"},
                {HVM_PARAM_MONITOR_RING_PFN, "the monitor ring"}};
  for (const auto& ring : kRings) {
    std::uint64_t gfn = 0;
    if (xc_hvm_param_get(handles_->control.get(), id, ring.number, &gfn) == 0 && gfn != 0)
      pages.push_back({gfn, ring.what});
  }
  return pages;
}

int XenCalls::mark_on_demand(DomainId id, const dsm::Gfn* gfns, std::uint32_t count) noexcept {
  if (count > kMostAccesses) return E2BIG;
  xen_pfn_t pages[kMostAccesses];
  std::copy_n(gfns, count, pages);
  constexpr unsigned kOrder = 0;  // an entry of 2 MiB without rights loses writes: README.md
  return result_of(xc_domain_populate_physmap_exact(handles_->control.get(), id, count, kOrder,
                                                    XENMEMF_populate_on_demand, pages));
}

int XenCalls::give_back(DomainId id, const dsm::Gfn* gfns, std::uint32_t count) noexcept {
  if (count > kMostAccesses) return E2BIG;
  xen_pfn_t pages[kMostAccesses];
  std::copy_n(gfns, count, pages);
  return result_of(
      xc_domain_decrease_reservation_exact(handles_->control.get(), id, count, 0, pages));
}

int XenCalls::on_demand(DomainId id, OnDemandFacts& facts) const noexcept {
  return result_of(xc_domain_get_pod_target(handles_->control.get(), id, &facts.pages, &facts.ready,
                                            &facts.entries));
}

int XenCalls::set_most_pages(DomainId id, std::uint64_t pages) noexcept {
  return result_of(xc_domain_setmaxmem(handles_->control.get(), id, pages * 4));  // KiB
}

int XenCalls::set_on_demand_target(DomainId id, std::uint64_t pages) noexcept {
  return result_of(
      xc_domain_set_pod_target(handles_->control.get(), id, pages, nullptr, nullptr, nullptr));
}

Result<dsm::Gfn> XenCalls::highest_gfn(DomainId id) const {
  xen_pfn_t highest = 0;
  if (xc_domain_maximum_gpfn(handles_->control.get(), id, &highest) < 0)
    return about(id, "no highest page");
  return dsm::Gfn{highest};
}

Result<XenCalls::MonitorPage> XenCalls::enable_monitor(DomainId id) {
  MonitorPage ring;
  ring.page = xc_monitor_enable(handles_->control.get(), id, &ring.port);
  if (ring.page == nullptr) {
    if (errno == EBUSY)
      return Error{EBUSY, fmt::format("domain {} is watched by another program: end it", id)};
    return about(id, "no monitor ring", "it has to be a PVH or HVM domain");
  }
  return ring;
}

Status XenCalls::disable_monitor(DomainId id, MonitorPage ring) {
  const int error = result_of(xc_monitor_disable(handles_->control.get(), id));
  if (ring.page != nullptr) ::munmap(ring.page, XC_PAGE_SIZE);
  errno = error;
  if (error != 0) return about(id, "cannot close the monitor ring");
  return {};
}

Status XenCalls::require_listener(DomainId id, bool required) {
  if (xc_domain_set_access_required(handles_->control.get(), id, required ? 1 : 0) != 0)
    return about(id, "cannot make page rights outlive their listener");
  return {};
}

Status XenCalls::watch_msr(DomainId id, std::uint32_t msr, bool on) {
  if (xc_monitor_mov_to_msr(handles_->control.get(), id, msr, on, false) != 0)
    return about(id, "cannot watch a machine register", "open the monitor ring first");
  return {};
}

int XenCalls::inject_interrupt(DomainId id, std::uint8_t apic_id, std::uint8_t vector) noexcept {
  constexpr std::uint64_t kMessages = 0xfee00000;  // where a PCI device writes its messages to
  return result_of(xendevicemodel_inject_msi(handles_->devices.get(), static_cast<domid_t>(id),
                                             kMessages | std::uint64_t{apic_id} << 12, vector));
}

struct EventChannel::Handle {
  std::unique_ptr<xenevtchn_handle, Closer<xenevtchn_close>> channel;
  evtchn_port_t port = 0;
};

EventChannel::EventChannel(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
EventChannel::EventChannel(EventChannel&&) noexcept = default;
EventChannel& EventChannel::operator=(EventChannel&&) noexcept = default;
EventChannel::~EventChannel() = default;  // closing the handle unbinds the port

Result<EventChannel> EventChannel::bind(DomainId id, std::uint32_t remote_port) {
  auto handle = std::make_unique<Handle>();
  handle->channel.reset(xenevtchn_open(&silent, 0));
  if (!handle->channel) return system_error(errno, "cannot open Xen's event channels", kNoDom0);
  const int port = xenevtchn_bind_interdomain(handle->channel.get(), id, remote_port);
  if (port < 0) return about(id, "cannot bind the event channel");
  handle->port = static_cast<evtchn_port_t>(port);
  return EventChannel(std::move(handle));
}

int EventChannel::fd() const { return xenevtchn_fd(handle_->channel.get()); }

bool EventChannel::take() noexcept {
  pollfd ready{fd(), POLLIN, 0};
  if (::poll(&ready, 1, 0) <= 0) return false;
  const int port = xenevtchn_pending(handle_->channel.get());
  if (port < 0) return false;
  xenevtchn_unmask(handle_->channel.get(), static_cast<evtchn_port_t>(port));
  return true;
}

int EventChannel::notify() noexcept {
  return result_of(xenevtchn_notify(handle_->channel.get(), handle_->port));
}

}  // namespace xenspan::hypervisor::xen
