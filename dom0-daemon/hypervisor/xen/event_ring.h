// The page in which Xen reports what a domain's vCPUs did, as a ring of requests and answers
// (xen/vm_event.h, xen/io/ring.h).
//
// Pure: works on any 4 KiB of memory, so that a test can play Xen's part. A vCPU whose event says
// `held` stands still until its answer has been published. Threading: next() from one thread;
// answer() and publish() from any thread (one short lock; they touch indices and one ring entry).
// Ownership: the page is borrowed.
#pragma once

#include <cstdint>
#include <mutex>

#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::xen {

extern const int kEventVersion;  // of the interface this was built for

struct VcpuEvent {
  enum class Kind : std::uint8_t {
    kAccess,    // the page's right did not allow it
    kMsrWrite,  // a watched machine register is about to be written
    kOther,     // nothing that was asked for: answer it, no more
  };
  Kind kind = Kind::kOther;
  bool held = false;
  unsigned vcpu = 0;
  // kAccess: what was tried; a read-modify-write is both.
  dsm::Gfn gfn = 0;
  bool read = false, write = false, execute = false;
  bool page_walk = false;  // by the processor on its way through the guest's page tables
  // kMsrWrite
  std::uint32_t msr = 0;
  std::uint64_t value = 0;

  std::uint32_t reason = 0;  // Xen's word for the kind; the answer repeats it
};

class EventRing {
 public:
  // `page` is what Xen will write to; it is emptied.
  explicit EventRing(void* page);
  EventRing(const EventRing&) = delete;
  EventRing& operator=(const EventRing&) = delete;

  // The next event, in order; false: there is none, and the event channel tells of the next one.
  // EPROTO is kept in error() when Xen speaks another version.
  bool next(VcpuEvent& event) noexcept;
  // Lets the vCPU of this event go on, once published.
  void answer(const VcpuEvent& event) noexcept;
  // Shows Xen the answers written so far. true: there were some, so the event channel is to be
  // notified, once.
  bool publish() noexcept;

  int error() const { return error_; }
  static unsigned entries();  // of the ring

 private:
  struct Shared;
  Shared* const shared_;
  std::uint32_t taken_ = 0;  // requests
  std::mutex lock_;          // the two below
  std::uint32_t written_ = 0, published_ = 0;
  int error_ = 0;
};

}  // namespace xenspan::hypervisor::xen
