#include "dom0-daemon/hypervisor/xen/slice.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/log.h"
#include "dom0-daemon/hypervisor/xen/home_pages.h"
#include "dom0-daemon/hypervisor/xen/interrupt_command.h"

namespace xenspan::hypervisor::xen {

Result<std::unique_ptr<Slice>> Slice::create(XenCalls& xen, Config config) {
  if (config.vcpus > 64)
    return Error{EINVAL, fmt::format("domain {} has {} vCPUs: a spanning domain has 64 at most",
                                     config.domain, config.vcpus)};
  std::unique_ptr<Slice> slice(new Slice(xen, std::move(config)));
  const Config& known = slice->config_;
  slice->wake_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!slice->wake_) return system_error(errno, "no descriptor to end a slice by");
  auto pages = PageAccess::create(slice->guest_, {known.pages, known.vcpus});
  if (!pages) return pages.error();
  slice->pages_ = std::move(*pages);
  auto ring = MonitorRing::open(xen, known.domain);
  if (!ring) return ring.error();
  slice->ring_ = std::move(*ring);
  if (Status kept = xen.require_listener(known.domain, true); !kept) return kept.error();
  if (Status seen = xen.watch_msr(known.domain, kInterruptCommandMsr, true); !seen)
    return seen.error();
  return slice;
}

Slice::Slice(XenCalls& xen, Config config)
    : xen_(xen), config_(std::move(config)), guest_(xen, config_.domain), here_(config_.here) {}

Slice::~Slice() { stop(); }

// A page of zeros is what a page that nobody has is, too.
Status Slice::become_home(dsm::Engine& engine) {
  const auto kept = keep_contents(xen_, config_.domain, config_.pages, true, home_pages_);
  if (!kept) return kept.error();
  home_pages_ = kept->home;
  for (const GfnRun& run : kept->runs) {
    pages_->adopt(run.first, run.count);
    if (engine.acquire_range(run.first, run.count, dsm::Right::kExclusive) !=
        dsm::Outcome::kGranted)
      return Error{EIO, fmt::format("domain {}: {}", config_.domain, engine.stop_cause())};
  }
  return fill_stock();
}

Status Slice::become_remote() {
  remote_ = true;
  for (unsigned vcpu = 0; vcpu < config_.vcpus; ++vcpu) {
    if (Status down = xen_.take_down(config_.domain, vcpu); !down) return down;
  }
  if (Status empty = prepare_on_demand(xen_, config_.domain, 0, config_.pages, true); !empty)
    return empty;
  return fill_stock();
}

Status Slice::fill_stock() {
  if (const int error = pages_->prime(); error != 0)
    return system_error(error, fmt::format("no memory for domain {}", config_.domain),
                        "free some on this host: see `xl info`");
  return {};
}

Status Slice::start(dsm::Engine& engine) {
  engine_ = &engine;
  // Those beyond the coherent pages exist here, too, with all rights. One that does not is a hole.
  for (const HomePage& page : home_pages_) {
    if (!remote_ || page.gfn < config_.pages) continue;
    if (const int error = xen_.set_access(config_.domain, page.gfn, 1, Access::kNone); error != 0)
      log::debug("page {:x} of domain {} ({}): {}", page.gfn, config_.domain, page.what,
                 std::strerror(error));
  }
  for (unsigned i = 0; i < config_.vcpus; ++i) {
    vcpus_.push_back(std::make_unique<Vcpu>());
    Vcpu& vcpu = *vcpus_.back();
    vcpu.server = std::thread([this, &vcpu] { serve(vcpu); });
  }
  watcher_ = std::thread([this] { watch(); });
  return xen_.unpause(config_.domain);
}

void Slice::stop() {
  if (!watcher_.joinable()) return;
  if (Status paused = xen_.pause(config_.domain); !paused)
    log::warning("{}", paused.error().message);
  ended_ = true;
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) log::warning("a slice cannot be woken");
  watcher_.join();
  for (auto& vcpu : vcpus_) vcpu->faulted.release();
  for (auto& vcpu : vcpus_) vcpu->server.join();
}

void Slice::watch() {
  while (!ended_) {
    pollfd ready[] = {{ring_->fd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    ::poll(ready, 2, -1);
    const std::lock_guard guard(events_lock_);
    const int error = take_events();
    if (error == 0) continue;
    engine_->stop(fmt::format("the monitor ring of domain {} failed: {}", config_.domain,
                              std::strerror(error)));
    return;
  }
}

int Slice::take_events() {
  return ring_->take([this](const VcpuEvent& event) { on_event(event); });
}

// No vCPU runs meanwhile, and every interrupt sent so far has been seen while the vCPUs were where
// Xen found them: it has delivered those that were for a vCPU here.
template <typename Change>
Status Slice::between_events(Change&& change) {
  if (Status paused = xen_.pause(config_.domain); !paused) return paused;
  Status done;
  {
    const std::lock_guard guard(events_lock_);
    if (const int error = take_events(); error != 0)
      done = system_error(error, fmt::format("the monitor ring of domain {}", config_.domain));
    else
      done = change();
  }
  Status running = xen_.unpause(config_.domain);
  return done ? running : done;
}

Result<VcpuContext> Slice::take_vcpu(unsigned vcpu) {
  Result<VcpuContext> context = Error{};
  Status taken = between_events([&]() -> Status {
    context = xen::take_vcpu(xen_, config_.domain, vcpu);
    if (!context) return context.error();
    here_ &= ~(std::uint64_t{1} << vcpu);
    return make_up_for(*context, behind_);
  });
  return taken ? std::move(context) : taken.error();
}

Status Slice::put_vcpu(const VcpuContext& context, TscFit* fit) {
  return between_events([&]() -> Status {
    TscFit now;
    if (Status put = xen::put_vcpu(xen_, config_.domain, context, &now, behind_); !put) return put;
    behind_ = now.behind;
    if (fit != nullptr) *fit = now;
    here_ |= std::uint64_t{1} << context.vcpu;
    return {};
  });
}

// The vCPU stands from then on.
bool Slice::is_refused(const VcpuEvent& event) noexcept {
  if (!remote_) return false;
  const HomePage* page = find_home_page(home_pages_, event.gfn);
  if (page == nullptr) return false;
  stop_with(
      fmt::format("vCPU {} touched page {:x} of the guest, {}, which stays on the home: let only "
                  "vCPUs of the home use it",
                  event.vcpu, event.gfn, page->what));
  return true;
}

void Slice::stop_with(const std::string& cause) noexcept {
  if (config_.on_stop)
    config_.on_stop(cause);
  else
    engine_->stop(cause);
}

void Slice::on_event(const VcpuEvent& event) noexcept {
  if (event.kind == VcpuEvent::Kind::kMsrWrite) on_interrupt_command(event);
  const bool fault = event.kind == VcpuEvent::Kind::kAccess && event.vcpu < vcpus_.size();
  if (fault && is_refused(event)) return;
  if (fault && event.gfn < config_.pages) {
    vcpus_[event.vcpu]->event = event;
    ++serving_;
    vcpus_[event.vcpu]->faulted.release();
    return;
  }
  // Beyond the coherent pages is what Xen and the home's tools have put there; each slice has its
  // own.
  if (fault) {
    ++elsewhere_;
    xen_.set_access(config_.domain, event.gfn, 1, Access::kAll);
  }
  ring_->answer(event);
}

// Xen carries it out here, too: for a vCPU that is elsewhere that changes a state nobody looks at.
void Slice::on_interrupt_command(const VcpuEvent& event) noexcept {
  if (event.msr != kInterruptCommandMsr) return;
  const auto command = decode_interrupt_command(event.value, event.vcpu, config_.vcpus);
  const std::uint64_t away = command.targets & ~here_;
  if (away == 0) return;
  if (!command.ordinary) {
    stop_with(
        fmt::format("vCPU {} sent a vCPU on another host an interrupt that cannot be "
                    "carried there (INIT, start-up, NMI or SMI; command {:x})",
                    event.vcpu, event.value));
    return;
  }
  for (unsigned vcpu = 0; vcpu < config_.vcpus; ++vcpu) {
    if ((away >> vcpu & 1) == 0) continue;
    ++interrupts_sent_;
    if (config_.on_interrupt) config_.on_interrupt(vcpu, command.vector);
  }
}

void Slice::serve(Vcpu& vcpu) noexcept {
  for (;;) {
    vcpu.faulted.acquire();
    if (ended_) return;
    ++faults_;
    const dsm::Right wanted = vcpu.event.write ? dsm::Right::kExclusive : dsm::Right::kShared;
    const bool granted = engine_->acquire(vcpu.event.gfn, wanted) == dsm::Outcome::kGranted;
    --serving_;
    if (!granted) continue;
    ring_->answer(vcpu.event);
    if (const int error = ring_->publish(); error != 0)
      engine_->stop(fmt::format("domain {} cannot be told of an answer: {}", config_.domain,
                                std::strerror(error)));
  }
}

int Slice::deliver(unsigned vcpu, std::uint8_t vector) noexcept {
  return xen_.inject_interrupt(config_.domain, apic_id_of(vcpu), vector);
}

void Slice::quiet() const noexcept {
  const timespec while_it_is_answered{0, 1'000'000};
  while (serving_ != 0) ::nanosleep(&while_it_is_answered, nullptr);
}

Slice::Counts Slice::counts() const { return {faults_, interrupts_sent_, elsewhere_}; }

}  // namespace xenspan::hypervisor::xen
