// xen_access DOMID PAGES: sets access rights on pages of a running test guest (workload `touch', as
// many pages) and shows that Xen reports every access that they forbid, once, before it happens,
// and no other. Run in Dom0, as root.
//
// How it shows that an access waits: while a page may not be touched at all it holds zeros; its
// contents are put back only when its event arrives, just before the right is given. A single
// access that Xen let through would be a wrong value.
//
// One line a step; the exit status is 0 when all were right, 1 when one was not, 3 when this Xen
// has no mem_access. Single-threaded. Ring protocol: xen/io/ring.h; calls as Xen's
// tools/misc/xen-access.c makes them.
extern "C" {
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
}
#include <poll.h>
#include <sys/mman.h>
#include <xen/io/ring.h>
#include <xen/vm_event.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "frontend-drivers/testguest/layout.h"
#include "frontend-drivers/testguest/touch_orders.h"

namespace {

DEFINE_RING_TYPES(monitor, vm_event_request_t, vm_event_response_t);

constexpr size_t kPage = 4096;
constexpr uint64_t kFirst = TOUCH_ADDRESS / kPage;
using Page = std::array<uint64_t, kPage / 8>;
using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const char* what) {
  std::printf("xen_access: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

// The guest's pages as this program sees them, and Xen's word on who may do what with them.
class Guest {
 public:
  Guest(uint32_t domain, uint64_t pages) : domain_(domain), pages_(pages) {
    xc_ = xc_interface_open(nullptr, nullptr, 0);
    memory_ = xenforeignmemory_open(nullptr, 0);
    events_ = xenevtchn_open(nullptr, 0);
    if (xc_ == nullptr || memory_ == nullptr || events_ == nullptr) fail("this is no Dom0");
    gate_ = static_cast<std::atomic<uint64_t>*>(map(GATE_ADDRESS / kPage, 1));
    view_ = static_cast<Page*>(map(kFirst, pages));
    uint32_t port = 0;
    void* ring = xc_monitor_enable(xc_, domain, &port);
    if (ring == nullptr) fail("the monitor ring cannot be had");
    port_ = xenevtchn_bind_interdomain(events_, domain, port);
    if (port_ < 0) fail("the ring's event channel cannot be bound");
    auto* shared = static_cast<monitor_sring_t*>(ring);
    SHARED_RING_INIT(shared);
    BACK_RING_INIT(&ring_, shared, kPage);
    if (xc_domain_set_access_required(xc_, domain, 1) != 0) fail("xc_domain_set_access_required");
  }
  ~Guest() {
    xc_domain_pause(xc_, domain_);
    xc_monitor_disable(xc_, domain_);
    xc_domain_unpause(xc_, domain_);
    xenevtchn_close(events_);
    xenforeignmemory_close(memory_);
    xc_interface_close(xc_);
  }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  bool has_mem_access() {
    return xc_set_mem_access(xc_, domain_, XENMEM_access_rwx, kFirst, 1) == 0;
  }
  void allow(xenmem_access_t right, uint64_t gfn, uint32_t pages) {
    if (xc_set_mem_access(xc_, domain_, right, gfn, pages) != 0) fail("xc_set_mem_access");
  }
  Page& page(uint64_t number) { return view_[number]; }
  uint64_t pages() const { return pages_; }

  void order(uint64_t what) {
    gate_[1] = what;
    gate_[0] = ++orders_;
  }
  uint64_t orders() const { return orders_; }
  bool order_done() const { return gate_[2] == orders_; }
  uint64_t wrong_pages() const { return gate_[3]; }

  // Waits for at most 100 ms and hands each event to `handle'; then the vCPU that waits goes on.
  template <typename Handler>
  void serve(Handler handle) {
    pollfd waiting{xenevtchn_fd(events_), POLLIN, 0};
    if (poll(&waiting, 1, 100) > 0) xenevtchn_unmask(events_, xenevtchn_pending(events_));
    bool any = false;
    while (RING_HAS_UNCONSUMED_REQUESTS(&ring_)) {
      vm_event_request_t request;
      std::memcpy(&request, RING_GET_REQUEST(&ring_, ring_.req_cons), sizeof request);
      ring_.req_cons++;
      ring_.sring->req_event = ring_.req_cons + 1;
      handle(request);
      vm_event_response_t response{};
      response.version = VM_EVENT_INTERFACE_VERSION;
      response.vcpu_id = request.vcpu_id;
      response.flags = request.flags & VM_EVENT_FLAG_VCPU_PAUSED;
      response.reason = request.reason;
      std::memcpy(RING_GET_RESPONSE(&ring_, ring_.rsp_prod_pvt), &response, sizeof response);
      ring_.rsp_prod_pvt++;
      any = true;
    }
    if (!any) return;
    RING_PUSH_RESPONSES(&ring_);
    xenevtchn_notify(events_, port_);
  }

 private:
  void* map(uint64_t gfn, size_t pages) {
    std::vector<xen_pfn_t> gfns(pages);
    std::vector<int> errors(pages);
    for (size_t i = 0; i < pages; i++) gfns[i] = gfn + i;
    void* at = xenforeignmemory_map(memory_, domain_, PROT_READ | PROT_WRITE, pages, gfns.data(),
                                    errors.data());
    for (size_t i = 0; at != nullptr && i < pages; i++) {
      if (errors[i] != 0) errno = -errors[i], at = nullptr;
    }
    if (at == nullptr)
      fail("the guest's pages cannot be mapped: is it the test guest, with memory for them?");
    return at;
  }

  uint32_t domain_;
  uint64_t pages_;
  uint64_t orders_ = 0;
  xc_interface* xc_;
  xenforeignmemory_handle* memory_;
  xenevtchn_handle* events_;
  int port_;
  monitor_back_ring_t ring_{};
  std::atomic<uint64_t>* gate_;
  Page* view_;
};

struct Step {
  const char* text;
  int right;  // of all pages before it; -1: as the last step left them
  uint64_t order;
  unsigned access;  // MEM_ACCESS_*: what each page's one event has to say; 0: no event
};
// After an event a page has the least right that lets the access through: rx, or rwx for a write.
constexpr Step kSteps[] = {
    {"no restriction, written", XENMEM_access_rwx, TOUCH_WRITE, 0},
    {"right n, read", XENMEM_access_n, TOUCH_READ, MEM_ACCESS_R},
    {"then rx, read again", -1, TOUCH_READ, 0},
    {"then rx, run", -1, TOUCH_RUN, 0},
    {"then rx, written", -1, TOUCH_WRITE, MEM_ACCESS_W},
    {"then rwx, written and read", -1, TOUCH_WRITE, 0},
    {"right n, run", XENMEM_access_n, TOUCH_RUN, MEM_ACCESS_X},
    {"right n, written", XENMEM_access_n, TOUCH_WRITE, MEM_ACCESS_W},
    {"right rx, read", XENMEM_access_rx, TOUCH_READ, 0},
    {"right rx, written", XENMEM_access_rx, TOUCH_WRITE, MEM_ACCESS_W},
    {"right n, read, at the end", XENMEM_access_n, TOUCH_READ, MEM_ACCESS_R},
};

struct Tally {
  uint64_t events = 0, outside = 0, other_access = 0, vcpus[MAX_VCPUS] = {};
  double set_seconds = 0;
  std::vector<unsigned> per_page;
};

// The event of a page: its contents come back, and then the right.
void answer(Guest& guest, const Step& step, std::vector<Page>& kept, Tally& tally,
            const vm_event_request_t& request) {
  const uint64_t gfn = request.u.mem_access.gfn, number = gfn - kFirst;
  if (request.reason != VM_EVENT_REASON_MEM_ACCESS || number >= guest.pages()) {
    tally.outside++;
    return;
  }
  const unsigned flags = request.u.mem_access.flags & MEM_ACCESS_RWX;
  tally.events++;
  tally.per_page[number]++;
  tally.vcpus[request.vcpu_id % MAX_VCPUS]++;
  tally.other_access += (flags & step.access) == 0;
  if (!kept.empty()) guest.page(number) = kept[number];
  const auto begin = Clock::now();
  guest.allow((flags & MEM_ACCESS_W) != 0 ? XENMEM_access_rwx : XENMEM_access_rx, gfn, 1);
  tally.set_seconds += std::chrono::duration<double>(Clock::now() - begin).count();
}

bool run_step(Guest& guest, const Step& step, uint64_t& last_write) {
  const uint64_t pages = guest.pages(), wrong_before = guest.wrong_pages();
  std::vector<Page> kept;
  Tally tally;
  tally.per_page.resize(pages);
  if (step.right >= 0)
    guest.allow(static_cast<xenmem_access_t>(step.right), kFirst, static_cast<uint32_t>(pages));
  if (step.right == XENMEM_access_n) {
    for (uint64_t number = 0; number < pages; number++) {
      kept.push_back(guest.page(number));
      guest.page(number).fill(0);
    }
  }
  guest.order(step.order);
  if (step.order == TOUCH_WRITE) last_write = guest.orders();
  const auto begin = Clock::now();
  while (!guest.order_done()) {
    guest.serve(
        [&](const vm_event_request_t& request) { answer(guest, step, kept, tally, request); });
    if (Clock::now() - begin > std::chrono::minutes(5)) {
      std::printf("FAIL %s: the guest does not answer; %lu events\n", step.text, tally.events);
      std::exit(1);
    }
  }
  uint64_t not_once = 0, values = 0;
  for (uint64_t number = 0; number < pages; number++) {
    not_once += tally.per_page[number] != (step.access != 0 ? 1U : 0U);
    values += guest.page(number)[0] == touch_value(number, last_write);
  }
  const uint64_t wrong = guest.wrong_pages() - wrong_before;
  const bool right = not_once == 0 && values == pages && wrong == 0 && tally.outside == 0 &&
                     tally.other_access == 0;
  std::printf("%s %s: %lu events on %lu pages (vCPU 0: %lu, vCPU 1: %lu), %lu values right",
              right ? "ok" : "FAIL", step.text, tally.events, pages, tally.vcpus[0], tally.vcpus[1],
              values);
  if (!right) {
    std::printf(
        "; %lu pages without exactly their events, %lu wrong in the guest, %lu events elsewhere, "
        "%lu of another access",
        not_once, wrong, tally.outside, tally.other_access);
  }
  if (tally.events > 0)
    std::printf("; set_mem_access %.0f us",
                tally.set_seconds * 1e6 / static_cast<double>(tally.events));
  std::printf("\n");
  std::fflush(stdout);
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: xen_access DOMID PAGES\n");
    return 2;
  }
  Guest guest(static_cast<uint32_t>(std::strtoul(argv[1], nullptr, 10)),
              std::strtoul(argv[2], nullptr, 10));
  if (!guest.has_mem_access()) {
    std::printf("this Xen has no mem_access on this processor: %s\n", std::strerror(errno));
    return 3;
  }
  unsigned failures = 0;
  uint64_t last_write = 0;
  for (const Step& step : kSteps) failures += !run_step(guest, step, last_write);
  guest.allow(XENMEM_access_rwx, kFirst, static_cast<uint32_t>(guest.pages()));
  guest.order(TOUCH_END);
  return failures == 0 ? 0 : 1;
}
