// The monitor ring's page, with the test in Xen's place.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "dom0-daemon/hypervisor/xen/event_ring.h"

#define __XEN_TOOLS__ 1
#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()
extern "C" {
#include <xen/vm_event.h>
#include <xen/xen.h>
}

namespace xenspan::hypervisor::xen {
namespace {

// What Xen does with its end.
class Xen {
 public:
  explicit Xen(void* page) { FRONT_RING_INIT(&front_, static_cast<vm_event_sring_t*>(page), 4096); }

  bool has_room() const { return !RING_FULL(&front_); }
  // Whether Xen would notify.
  bool put(std::uint32_t reason, std::uint32_t vcpu, std::uint64_t first, std::uint32_t flags,
           std::uint32_t version = VM_EVENT_INTERFACE_VERSION) {
    vm_event_request_t request;
    std::memset(&request, 0, sizeof request);
    request.version = version;
    request.flags = VM_EVENT_FLAG_VCPU_PAUSED;
    request.reason = reason;
    request.vcpu_id = vcpu;
    request.u.mem_access.gfn = first;
    request.u.mem_access.flags = flags;
    if (reason == VM_EVENT_REASON_MOV_TO_MSR) request.u.mov_to_msr = {first, 0xabc00000040, 0};
    *RING_GET_REQUEST(&front_, front_.req_prod_pvt) = request;
    ++front_.req_prod_pvt;
    int notify = 0;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front_, notify);
    return notify != 0;
  }
  std::vector<vm_event_response_t> answers() {
    std::vector<vm_event_response_t> found;
    while (front_.rsp_cons != front_.sring->rsp_prod)
      found.push_back(*RING_GET_RESPONSE(&front_, front_.rsp_cons++));
    return found;
  }

 private:
  vm_event_front_ring_t front_{};
};

struct Bed {
  alignas(4096) unsigned char page[4096];
  EventRing ring{page};
  Xen xen{page};
};

TEST(EventRing, AccessIsReadAndAnswered) {
  Bed bed;
  VcpuEvent event;
  EXPECT_FALSE(bed.ring.next(event));
  EXPECT_TRUE(bed.xen.put(VM_EVENT_REASON_MEM_ACCESS, 3, 0x1234, MEM_ACCESS_R | MEM_ACCESS_W));
  ASSERT_TRUE(bed.ring.next(event));
  EXPECT_EQ(event.kind, VcpuEvent::Kind::kAccess);
  EXPECT_TRUE(event.held);
  EXPECT_EQ(event.vcpu, 3u);
  EXPECT_EQ(event.gfn, 0x1234u);
  EXPECT_TRUE(event.read && event.write && !event.execute && !event.page_walk);
  EXPECT_FALSE(bed.ring.next(event));
  bed.ring.answer(event);
  EXPECT_TRUE(bed.xen.answers().empty()) << "seen before it was published";
  EXPECT_TRUE(bed.ring.publish());
  EXPECT_FALSE(bed.ring.publish()) << "notified twice";
  const auto answers = bed.xen.answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].vcpu_id, 3u);
  EXPECT_EQ(answers[0].flags, static_cast<unsigned>(VM_EVENT_FLAG_VCPU_PAUSED));
  EXPECT_EQ(answers[0].reason, static_cast<unsigned>(VM_EVENT_REASON_MEM_ACCESS));
  EXPECT_EQ(answers[0].version, static_cast<unsigned>(VM_EVENT_INTERFACE_VERSION));
}

TEST(EventRing, MsrWriteHasItsValue) {
  Bed bed;
  bed.xen.put(VM_EVENT_REASON_MOV_TO_MSR, 1, 0x830, 0);
  VcpuEvent event;
  ASSERT_TRUE(bed.ring.next(event));
  EXPECT_EQ(event.kind, VcpuEvent::Kind::kMsrWrite);
  EXPECT_EQ(event.msr, 0x830u);
  EXPECT_EQ(event.value, 0xabc00000040u);
}

// Many rounds over the end of the ring, answers in another order than events.
TEST(EventRing, GoesRoundAndRound) {
  Bed bed;
  std::uint64_t next = 0, taken = 0;
  unsigned answered = 0;
  for (int round = 0; round < 1000; ++round) {
    while (bed.xen.has_room()) bed.xen.put(VM_EVENT_REASON_MEM_ACCESS, next % 5, next, 4), ++next;
    EXPECT_EQ(next - taken, EventRing::entries());
    std::vector<VcpuEvent> events;
    for (VcpuEvent event; bed.ring.next(event); ++taken) {
      EXPECT_EQ(event.gfn, taken);
      EXPECT_TRUE(event.execute);
      events.insert(events.begin(), event);
    }
    for (const VcpuEvent& event : events) bed.ring.answer(event);
    EXPECT_TRUE(bed.ring.publish());
    const auto answers = bed.xen.answers();
    ASSERT_EQ(answers.size(), events.size());
    for (std::size_t i = 0; i < events.size(); ++i) EXPECT_EQ(answers[i].vcpu_id, events[i].vcpu);
    answered += static_cast<unsigned>(answers.size());
  }
  EXPECT_EQ(answered, next);
}

// Xen notifies of the next event once the ring has been found empty, and not of each.
TEST(EventRing, XenNotifiesOncePerBatch) {
  Bed bed;
  VcpuEvent event;
  EXPECT_FALSE(bed.ring.next(event));
  EXPECT_TRUE(bed.xen.put(VM_EVENT_REASON_MEM_ACCESS, 0, 1, 1));
  EXPECT_FALSE(bed.xen.put(VM_EVENT_REASON_MEM_ACCESS, 1, 2, 1));
  EXPECT_TRUE(bed.ring.next(event));
  EXPECT_TRUE(bed.ring.next(event));
  EXPECT_FALSE(bed.ring.next(event));
  EXPECT_TRUE(bed.xen.put(VM_EVENT_REASON_MEM_ACCESS, 0, 1, 1));
}

TEST(EventRing, AnotherVersionIsAnError) {
  Bed bed;
  bed.xen.put(VM_EVENT_REASON_MEM_ACCESS, 0, 1, 1, VM_EVENT_INTERFACE_VERSION + 1);
  VcpuEvent event;
  ASSERT_TRUE(bed.ring.next(event));
  EXPECT_EQ(event.kind, VcpuEvent::Kind::kOther);
  EXPECT_EQ(bed.ring.error(), EPROTO);
}

}  // namespace
}  // namespace xenspan::hypervisor::xen
