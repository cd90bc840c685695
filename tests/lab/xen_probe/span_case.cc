// A spanning domain in its smallest form: two domains of one Xen are its slices, two engines in
// this process keep their memory coherent, over TCP.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <mutex>
#include <utility>
#include <vector>

#include "dom0-daemon/hypervisor/xen/capabilities.h"
#include "dom0-daemon/hypervisor/xen/slice.h"
#include "dom0-daemon/hypervisor/xen/vcpu_context.h"
#include "frontend-drivers/testguest/layout.h"
#include "tests/lab/xen_probe/cases.h"
#include "tests/lab/xen_probe/engine_pair.h"

namespace xenspan::lab {

using namespace hypervisor::xen;  // NOLINT: this program is about it

namespace {

constexpr unsigned kSlices = EnginePair::kEngines;
constexpr dsm::Gfn kPages = 4096;  // 16 MiB
constexpr dsm::Gfn kGate = GATE_ADDRESS >> dsm::kPageShift;
// A granted page is kept until its vCPU has had a turn: here Dom0 and all vCPUs share a processor.
constexpr unsigned kHoldUs = 20'000;

class Span {
 public:
  Span(XenCalls& xen, DomainId home, DomainId remote) : xen_(xen), domains_{home, remote} {}
  ~Span() {
    engines_.stop();
    for (auto& slice : slices_) {
      if (slice) slice->stop();
    }
  }

  // vCPU 1 runs in the remote slice, vCPU 0 at home.
  Status start() {
    for (const DomainId domain : domains_) {
      const auto facts = xen_.domain(domain);
      if (!facts) return facts.error();
      if (Status can = may_be_slice(*facts); !can) return can;
      if (facts->paused) continue;
      if (Status paused = xen_.pause(domain); !paused) return paused;
    }
    for (unsigned i = 0; i < kSlices; ++i) {
      Slice::Config config;
      config.domain = domains_[i];
      config.vcpus = kSlices;
      config.here = i == 0 ? 3 : 0;
      config.pages = kPages;
      config.on_interrupt = [this](unsigned vcpu, std::uint8_t vector) { pass_on(vcpu, vector); };
      auto made = Slice::create(xen_, std::move(config));
      if (!made) return made.error();
      slices_[i] = std::move(*made);
    }
    fmt::print("rings are open\n");
    if (Status joined = engines_.join(kPages, kHoldUs); !joined) return joined;
    if (Status remote = slices_[1]->become_remote(); !remote) return remote;
    fmt::print("the remote slice is empty\n");
    for (unsigned i = 0; i < kSlices; ++i) {
      if (Status made = engines_.start(i, slices_[i]->pages()); !made) return made;
    }
    if (Status home = slices_[0]->become_home(engines_[0]); !home) return home;
    for (const HomePage& page : slices_[0]->home_pages())
      fmt::print("page {:x} stays home: {}\n", page.gfn, page.what);
    slices_[1]->stay_home(slices_[0]->home_pages());
    fmt::print("the home's memory is the engine's\n");
    if (Status moved = move(1, 1); !moved) return moved;
    for (unsigned i = 0; i < kSlices; ++i) {
      if (Status running = slices_[i]->start(engines_[i]); !running) return running;
    }
    return {};
  }

  // The vCPU goes on in that slice.
  Status move(unsigned vcpu, unsigned to) {
    const unsigned from = leaves(vcpu);
    const auto context = slices_[from]->take_vcpu(vcpu);
    TscFit fit;
    Status put = context ? slices_[to]->put_vcpu(*context, &fit) : Status{context.error()};
    if (!put) return put;
    const std::uint64_t away = monotonic_ns() - context->taken_ns;
    const std::size_t kept = arrives(vcpu, to);
    fmt::print("vCPU {} has moved to slice {}, at {:x}, in {} us, {} interrupts after it; {}\n",
               vcpu, to, context->registers.rip, away / 1000, kept, in_step(vcpu, fit));
    return {};
  }
  // The test guest's (gate=1). Only vCPU 0 looks at that page.
  Status open_gate() {
    void* place = ::mmap(nullptr, dsm::kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return system_error(errno, "no address");
    const int error = xen_.map(domains_[0], kGate, static_cast<std::byte*>(place));
    if (error == 0) std::atomic_ref(*static_cast<std::uint64_t*>(place)).store(1);
    ::munmap(place, dsm::kPageSize);
    return error == 0 ? Status{} : system_error(error, "the guest's gate cannot be mapped");
  }
  Status move_on() { return move(1, 1 - where_[1]); }

  std::string report() {
    std::string text;
    for (unsigned i = 0; i < kSlices; ++i) {
      const Slice::Counts counts = slices_[i]->counts();
      const auto stats = engines_[i].stats(0);
      const auto facts = xen_.domain(domains_[i]);
      text += fmt::format(
          "slice {}: {} faults, {} interrupts sent to the other, {} pages served, {} pages of "
          "memory, {} events elsewhere{}\n",
          i, counts.faults, counts.interrupts_sent, stats.traffic.pages_sent,
          facts ? facts->pages : 0, counts.elsewhere,
          engines_[i].stop_cause().empty() ? "" : ", stopped: " + engines_[i].stop_cause());
    }
    return text;
  }
  bool stopped() const { return !engines_[0].stop_cause().empty(); }
  bool both_faulted() const {
    return slices_[0]->counts().faults > 0 && slices_[1]->counts().faults > 0;
  }

 private:
  static constexpr unsigned kUnderWay = kSlices;

  unsigned leaves(unsigned vcpu) {
    const std::lock_guard guard(where_lock_);
    return std::exchange(where_[vcpu], kUnderWay);
  }
  std::size_t arrives(unsigned vcpu, unsigned to) {
    const std::lock_guard guard(where_lock_);
    where_[vcpu] = to;
    for (const std::uint8_t vector : kept_) slices_[to]->deliver(vcpu, vector);
    return std::exchange(kept_, {}).size();
  }
  // One vCPU is under way at a time.
  void pass_on(unsigned vcpu, std::uint8_t vector) {
    const std::lock_guard guard(where_lock_);
    if (where_[vcpu] == kUnderWay) {
      kept_.push_back(vector);
    } else {
      slices_[where_[vcpu]]->deliver(vcpu, vector);
    }
  }
  // How far its TSC is from that of vCPU 0.
  std::string in_step(unsigned vcpu, const TscFit& fit) {
    const auto khz = xen_.tsc_khz(domains_[0]);
    const auto first = read_tsc(xen_, domains_[where_[0]], 0);
    const auto second = read_tsc(xen_, domains_[where_[vcpu]], vcpu);
    if (!khz || !first || !second) return "its TSC cannot be read";
    const std::int64_t between = ticks_in(static_cast<std::int64_t>(second->ns - first->ns), *khz);
    const auto apart = static_cast<std::int64_t>(second->tsc - first->tsc) - between;
    return fmt::format("TSC {} ticks from vCPU 0's, {} from where it was, in {} tries ({} kHz)",
                       apart, -fit.behind, fit.tries, *khz);
  }
  XenCalls& xen_;
  const DomainId domains_[kSlices];
  std::unique_ptr<Slice> slices_[kSlices];
  EnginePair engines_;  // after the slices: it is gone before their pages are
  std::mutex where_lock_;
  unsigned where_[kSlices] = {0, 0};  // the slice of each vCPU
  std::vector<std::uint8_t> kept_;    // interrupts for the vCPU that is under way
};

}  // namespace

int span(XenCalls& xen, DomainId home, DomainId remote) {
  sigset_t orders;
  sigemptyset(&orders);
  sigaddset(&orders, SIGTERM);
  sigaddset(&orders, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &orders, nullptr);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Span spanning(xen, home, remote);
  if (Status started = spanning.start(); !started) return fail(started.error().message);
  if (Status open = spanning.open_gate(); !open) return fail(open.error().message);
  fmt::print("spanning\n");
  const timespec second{1, 0};
  unsigned seconds = 0;
  for (int order = 0; order != SIGTERM; order = ::sigtimedwait(&orders, nullptr, &second)) {
    if (spanning.stopped()) break;
    if (order == SIGUSR1) {
      if (Status moved = spanning.move_on(); !moved) return fail(moved.error().message);
    } else if (++seconds % 20 == 0) {
      fmt::print("{}", spanning.report());
    }
  }
  fmt::print("{}", spanning.report());
  return !spanning.stopped() && spanning.both_faulted() ? 0 : 1;
}

}  // namespace xenspan::lab
