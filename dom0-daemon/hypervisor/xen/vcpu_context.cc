#include "dom0-daemon/hypervisor/xen/vcpu_context.h"

#include <ctime>
#include <utility>

namespace xenspan::hypervisor::xen {
namespace {

// Xen takes the orders about one vCPU while the whole domain stands.
template <typename Order>
Status while_paused(XenCalls& xen, DomainId domain, Order&& order) {
  if (Status paused = xen.pause(domain); !paused) return paused;
  Status done = order();
  Status running = xen.unpause(domain);
  return done ? running : done;
}

}  // namespace

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

Result<VcpuContext> take_vcpu(XenCalls& xen, DomainId from, unsigned vcpu) {
  VcpuContext context;
  auto all = xen.context(from);
  context.taken_ns = monotonic_ns();
  if (!all) return all.error();
  const auto records = HvmRecords::parse(*all);
  if (!records) return records.error();
  auto own = records->of_vcpu(vcpu);
  if (!own) return own.error();
  const auto registers = records->registers(vcpu);
  if (!registers) return registers.error();
  context.records = std::move(*own);
  context.registers = *registers;
  return context;
}

Status put_vcpu(XenCalls& xen, DomainId to, VcpuContext context, std::uint64_t away_ns) {
  const auto khz = xen.tsc_khz(to);
  if (!khz) return khz.error();
  const auto ticks =
      static_cast<std::uint64_t>(static_cast<unsigned __int128>(away_ns) * *khz / 1'000'000);
  if (Status moved = advance_tsc(context.records, ticks); !moved) return moved;
  return xen.set_context(to, context.records);
}

Status hold_vcpu(XenCalls& xen, DomainId domain, unsigned vcpu) {
  return while_paused(xen, domain, [&] { return xen.hold_vcpu(domain, vcpu); });
}

Status release_vcpu(XenCalls& xen, DomainId domain, unsigned vcpu) {
  return while_paused(xen, domain, [&] { return xen.release_vcpu(domain, vcpu); });
}

}  // namespace xenspan::hypervisor::xen
