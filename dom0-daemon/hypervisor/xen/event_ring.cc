#include "dom0-daemon/hypervisor/xen/event_ring.h"

#include <atomic>
#include <cerrno>
#include <cstring>

// The layout of the page is the hypervisor's, not a library's.
#define __XEN_TOOLS__ 1
extern "C" {
#include <xen/io/ring.h>
#include <xen/vm_event.h>
#include <xen/xen.h>
}

namespace xenspan::hypervisor::xen {
namespace {

VcpuEvent::Kind kind_of(std::uint32_t reason) {
  if (reason == VM_EVENT_REASON_MEM_ACCESS) return VcpuEvent::Kind::kAccess;
  if (reason == VM_EVENT_REASON_MOV_TO_MSR) return VcpuEvent::Kind::kMsrWrite;
  return VcpuEvent::Kind::kOther;
}

VcpuEvent read_event(const vm_event_request_t& request) {
  VcpuEvent event;
  event.kind = kind_of(request.reason);
  event.held = (request.flags & VM_EVENT_FLAG_VCPU_PAUSED) != 0;
  event.vcpu = request.vcpu_id;
  event.reason = request.reason;
  if (event.kind == VcpuEvent::Kind::kAccess) {
    const vm_event_mem_access& access = request.u.mem_access;
    event.gfn = access.gfn;
    event.read = (access.flags & MEM_ACCESS_R) != 0;
    event.write = (access.flags & MEM_ACCESS_W) != 0;
    event.execute = (access.flags & MEM_ACCESS_X) != 0;
    event.page_walk = (access.flags & MEM_ACCESS_FAULT_IN_GPT) != 0;
  } else if (event.kind == VcpuEvent::Kind::kMsrWrite) {
    event.msr = static_cast<std::uint32_t>(request.u.mov_to_msr.msr);
    event.value = request.u.mov_to_msr.new_value;
  }
  return event;
}

std::uint32_t load(const RING_IDX& index) {
  return std::atomic_ref(const_cast<RING_IDX&>(index)).load(std::memory_order_acquire);
}
void store(RING_IDX& index, std::uint32_t value, std::memory_order order) {
  std::atomic_ref(index).store(value, order);
}

}  // namespace

const int kEventVersion = VM_EVENT_INTERFACE_VERSION;

struct EventRing::Shared : vm_event_sring_t {
  vm_event_sring_entry& at(std::uint32_t index) { return ring[index & (entries() - 1)]; }
};

unsigned EventRing::entries() {
  return __RING_SIZE(static_cast<vm_event_sring_t*>(nullptr), dsm::kPageSize);
}

EventRing::EventRing(void* page) : shared_(static_cast<Shared*>(page)) {
  SHARED_RING_INIT(shared_);
}

bool EventRing::next(VcpuEvent& event) noexcept {
  if (load(shared_->req_prod) == taken_) {
    // From now on Xen tells of the next request; one may have come in between.
    store(shared_->req_event, taken_ + 1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (load(shared_->req_prod) == taken_) return false;
  }
  const vm_event_request_t request = shared_->at(taken_).req;
  ++taken_;
  event = read_event(request);
  if (request.version != static_cast<std::uint32_t>(kEventVersion)) {
    event = VcpuEvent{};
    error_ = EPROTO;
  }
  return true;
}

void EventRing::answer(const VcpuEvent& event) noexcept {
  vm_event_response_t response;
  std::memset(&response, 0, sizeof response);
  response.version = VM_EVENT_INTERFACE_VERSION;
  response.vcpu_id = event.vcpu;
  response.flags = event.held ? VM_EVENT_FLAG_VCPU_PAUSED : 0;
  response.reason = event.reason;
  const std::lock_guard guard(lock_);
  shared_->at(written_).rsp = response;
  ++written_;
}

bool EventRing::publish() noexcept {
  const std::lock_guard guard(lock_);
  if (written_ == published_) return false;
  published_ = written_;
  store(shared_->rsp_prod, published_, std::memory_order_release);
  return true;
}

}  // namespace xenspan::hypervisor::xen
