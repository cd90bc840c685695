#include "dom0-daemon/hypervisor/xen/slice.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
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
    : xen_(xen), config_(std::move(config)), guest_(xen, config_.domain) {}

Slice::~Slice() { stop(); }

// Pages that are given away come back as entries, which must have no rights either.
Status Slice::become_home(dsm::Engine& engine) {
  pages_->adopt(0, config_.pages);
  if (const int error = xen_.set_default_access(config_.domain, Access::kNone); error != 0)
    return system_error(error, fmt::format("cannot take rights from domain {}", config_.domain));
  if (engine.acquire_range(0, config_.pages, dsm::Right::kExclusive) != dsm::Outcome::kGranted)
    return Error{EIO, fmt::format("domain {}: {}", config_.domain, engine.stop_cause())};
  return {};
}

Status Slice::become_remote() {
  for (unsigned vcpu = 0; vcpu < config_.vcpus; ++vcpu) {
    if (Status down = xen_.take_down(config_.domain, vcpu); !down) return down;
  }
  if (Status empty = prepare_on_demand(xen_, config_.domain, 0, config_.pages, true); !empty)
    return empty;
  if (const int error = pages_->prime(); error != 0)
    return system_error(error, fmt::format("no memory for domain {}", config_.domain),
                        "free some on this host: see `xl info`");
  return {};
}

Status Slice::start(dsm::Engine& engine) {
  engine_ = &engine;
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
    const int error = ring_->take([this](const VcpuEvent& event) { on_event(event); });
    if (error == 0) continue;
    engine_->stop(fmt::format("the monitor ring of domain {} failed: {}", config_.domain,
                              std::strerror(error)));
    return;
  }
}

void Slice::on_event(const VcpuEvent& event) noexcept {
  if (event.kind == VcpuEvent::Kind::kMsrWrite) on_interrupt_command(event);
  const bool fault = event.kind == VcpuEvent::Kind::kAccess && event.vcpu < vcpus_.size();
  if (fault && event.gfn < config_.pages) {
    vcpus_[event.vcpu]->event = event;
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
  const std::uint64_t away = command.targets & ~config_.here;
  if (away == 0) return;
  if (!command.ordinary) {
    engine_->stop(
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
    if (engine_->acquire(vcpu.event.gfn, wanted) != dsm::Outcome::kGranted) continue;
    ring_->answer(vcpu.event);
    if (const int error = ring_->publish(); error != 0)
      engine_->stop(fmt::format("domain {} cannot be told of an answer: {}", config_.domain,
                                std::strerror(error)));
  }
}

int Slice::deliver(unsigned vcpu, std::uint8_t vector) noexcept {
  return xen_.inject_interrupt(config_.domain, apic_id_of(vcpu), vector);
}

Slice::Counts Slice::counts() const { return {faults_, interrupts_sent_, elsewhere_}; }

}  // namespace xenspan::hypervisor::xen
