// One vCPU: held, watched, moved.
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "dom0-daemon/hypervisor/xen/monitor_ring.h"
#include "dom0-daemon/hypervisor/xen/vcpu_context.h"
#include "tests/lab/xen_probe/beat_page.h"
#include "tests/lab/xen_probe/cases.h"

namespace xenspan::lab {

using namespace hypervisor::xen;  // NOLINT: this program is about it

namespace {

constexpr int kTries = 200;  // of 50 ms: more than any machine needs

template <typename Condition>
bool comes_true(Condition&& condition) {
  for (int i = 0; i < kTries; ++i) {
    if (condition()) return true;
    ::usleep(50'000);
  }
  return false;
}

// Rounds and ticks after `before`, all of them right. Empty: so it is.
std::string goes_on(const BeatPage& page, Beat before, Beat& after) {
  constexpr std::uint64_t kRounds = 200, kTicks = 10;
  const bool moved = comes_true([&] {
    after = page.read();
    return after.round >= before.round + kRounds && after.ticks >= before.ticks + kTicks;
  });
  fmt::print("rounds {} to {}, timer ticks {} to {}\n", before.round, after.round, before.ticks,
             after.ticks);
  if (!moved) return "it makes no rounds, or its timer does not tick";
  if (after.tsc < before.tsc) return "the TSC went back";
  return wrong_in(after);
}

}  // namespace

int show_beats(XenCalls& xen, DomainId domain) {
  auto page = BeatPage::map(xen, domain);
  if (!page) return fail(page.error().message);
  Beat after;
  const std::string wrong = goes_on(**page, (*page)->read(), after);
  return wrong.empty() ? 0 : fail(wrong);
}

int pin(XenCalls& xen, DomainId domain, unsigned vcpu, unsigned cpu) {
  const std::vector<unsigned> cpus = {cpu};
  const Status pinned = xen.pin_vcpu(domain, vcpu, cpus);
  return pinned ? 0 : fail(pinned.error().message);
}

int hold_and_release(XenCalls& xen, DomainId domain) {
  auto page = BeatPage::map(xen, domain);
  if (!page) return fail(page.error().message);
  Beat after;
  if (const std::string wrong = goes_on(**page, (*page)->read(), after); !wrong.empty())
    return fail(wrong);
  const auto context = take_vcpu(xen, domain, 0);
  if (!context) return fail(context.error().message);
  const std::uint64_t stood = (*page)->round();
  ::usleep(500'000);
  const std::uint64_t rounds = (*page)->round() - stood;
  const auto facts = xen.domain(domain);
  const auto twice = take_vcpu(xen, domain, 0);
  if (Status put = put_vcpu(xen, domain, *context); !put) return fail(put.error().message);
  if (rounds != 0) return fail(fmt::format("a held vCPU made {} rounds", rounds));
  if (!facts || facts->paused) return fail("the domain was paused, and not its vCPU alone");
  if (twice) return fail("a vCPU that is down was taken a second time");
  fmt::print("a second time: {}\n", twice.error().message);
  const std::string wrong = goes_on(**page, after, after);
  return wrong.empty() ? 0 : fail("after its release: " + wrong);
}

int swing(XenCalls& xen, DomainId domain, unsigned vcpu) {
  const auto context = take_vcpu(xen, domain, vcpu);
  if (!context) return fail(context.error().message);
  ::usleep(100'000);
  TscFit fit;
  if (Status put = put_vcpu(xen, domain, *context, &fit); !put) return fail(put.error().message);
  fmt::print("vCPU {} is back, {} ticks behind after {} tries\n", vcpu, fit.behind, fit.tries);
  return 0;
}

namespace {

constexpr std::uint32_t kIcr = 0x830;  // x2APIC interrupt command
constexpr std::uint8_t kVector = 0x40;
constexpr unsigned kInterrupts = 20;

struct Seen {
  unsigned events = 0, wrong = 0;
  bool stood = true;  // until its answer
};

// The first event is answered late.
void take_all(MonitorRing& ring, const BeatPage& page, Seen& seen) {
  const auto handle = [&](const VcpuEvent& event) {
    if (seen.events++ == 0) {
      const std::uint64_t round = page.round();
      ::usleep(300'000);
      seen.stood = event.held && page.round() == round;
    }
    if (event.kind != VcpuEvent::Kind::kMsrWrite || event.msr != kIcr || event.value != kVector)
      ++seen.wrong;
    ring.answer(event);
  };
  pollfd ready{ring.fd(), POLLIN, 0};
  ::poll(&ready, 1, 50);
  ring.take(handle);
}

}  // namespace

int watch_interrupts(XenCalls& xen, DomainId domain) {
  auto page = BeatPage::map(xen, domain);
  if (!page) return fail(page.error().message);
  auto ring = MonitorRing::open(xen, domain);
  if (!ring) return fail(ring.error().message);
  if (Status on = xen.watch_msr(domain, kIcr, true); !on) return fail(on.error().message);
  const Beat before = (*page)->read();
  Seen seen;
  (*page)->send_interrupts(kInterrupts);
  const auto all_there = [&] {
    take_all(**ring, **page, seen);
    return (*page)->read().interrupts >= before.interrupts + kInterrupts;
  };
  const bool arrived = comes_true(all_there);
  const Beat sent = (*page)->read();
  fmt::print("{} events for {} interrupts sent, {} received\n", seen.events,
             sent.sent - before.sent, sent.interrupts - before.interrupts);
  if (Status off = xen.watch_msr(domain, kIcr, false); !off) return fail(off.error().message);
  if (!arrived || seen.events != kInterrupts || seen.wrong != 0)
    return fail(fmt::format("{} events were not those of the guest's interrupts", seen.wrong));
  if (!seen.stood) return fail("the vCPU went on before its event was answered");
  if (const int error = xen.inject_interrupt(domain, 0, kVector); error != 0)
    return fail(fmt::format("no interrupt from here: {}", std::strerror(error)));
  const auto one_more = [&] { return (*page)->read().interrupts == sent.interrupts + 1; };
  return comes_true(one_more) ? 0 : fail("an interrupt from here did not arrive");
}

namespace {

// Two pages of this process in which pages of domains are looked at.
class Copier {
 public:
  explicit Copier(XenCalls& xen) : xen_(xen) {
    void* got = ::mmap(nullptr, 2 * dsm::kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got != MAP_FAILED) places_ = static_cast<std::byte*>(got);
  }
  ~Copier() {
    if (places_ != nullptr) ::munmap(places_, 2 * dsm::kPageSize);
  }
  // The number of pages copied.
  std::uint64_t copy(DomainId from, DomainId to, dsm::Gfn count) {
    std::uint64_t copied = 0;
    for (dsm::Gfn gfn = 0; gfn < count && places_ != nullptr; ++gfn) {
      std::byte* target = places_ + dsm::kPageSize;
      if (xen_.map(from, gfn, places_) != 0 || xen_.map(to, gfn, target) != 0) continue;
      std::memcpy(target, places_, dsm::kPageSize);
      ++copied;
    }
    return copied;
  }

 private:
  XenCalls& xen_;
  std::byte* places_ = nullptr;
};

Status carry_over(XenCalls& xen, DomainId from, DomainId to) {
  auto context = take_vcpu(xen, from, 0);
  if (!context) return context.error();
  fmt::print("vCPU 0 of domain {} at {:x}, TSC {}: {} bytes\n", from, context->registers.rip,
             context->registers.tsc, context->records.size());
  TscFit fit;
  Status put = put_vcpu(xen, to, *context, &fit);
  if (put) fmt::print("its TSC is behind by {} ticks after {} tries\n", fit.behind, fit.tries);
  return put;
}

int move_once(XenCalls& xen, DomainId from, DomainId to) {
  constexpr dsm::Gfn kPages = 4096;  // 16 MiB
  auto source = BeatPage::map(xen, from);
  if (!source) return fail(source.error().message);
  Beat before, after;
  // It runs when it is taken.
  if (const std::string wrong = goes_on(**source, (*source)->read(), before); !wrong.empty())
    return fail(wrong);
  if (Status paused = xen.pause(from); !paused) return fail(paused.error().message);
  before = (*source)->read();
  if (Status paused = xen.pause(to); !paused) return fail(paused.error().message);
  const std::uint64_t copied = Copier(xen).copy(from, to, kPages);
  fmt::print("{} pages copied\n", copied);
  if (copied != kPages) return fail("not every page could be copied");
  if (Status moved = carry_over(xen, from, to); !moved) return fail(moved.error().message);
  auto target = BeatPage::map(xen, to);
  if (!target) return fail(target.error().message);
  if ((*target)->round() != before.round) return fail("the copy is not where the vCPU stood");
  for (auto facts = xen.domain(to); facts && facts->paused; facts = xen.domain(to))
    if (Status running = xen.unpause(to); !running) return fail(running.error().message);
  if (const std::string wrong = goes_on(**target, before, after); !wrong.empty())
    return fail(fmt::format("in domain {}: {}", to, wrong));
  // The source is not paused any more, and nothing runs there.
  if (Status running = xen.unpause(from); !running) return fail(running.error().message);
  ::usleep(200'000);
  if ((*source)->round() != before.round) return fail("it runs where it was taken from, too");
  return 0;
}

}  // namespace

int move_vcpu(XenCalls& xen, DomainId from, DomainId to) {
  const int there = move_once(xen, from, to);
  return there != 0 ? there : move_once(xen, to, from);
}

}  // namespace xenspan::lab
