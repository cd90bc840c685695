#include "dom0-daemon/hypervisor/xen/vcpu_context.h"

#include <ctime>
#include <utility>

namespace xenspan::hypervisor::xen {
namespace {

Result<VcpuContext> read_context(XenCalls& xen, DomainId from, unsigned vcpu) {
  auto all = xen.context(from);
  if (!all) return all.error();
  VcpuContext context;
  context.taken_ns = monotonic_ns();
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

}  // namespace

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

Result<VcpuContext> take_vcpu(XenCalls& xen, DomainId from, unsigned vcpu) {
  if (Status paused = xen.pause(from); !paused) return paused.error();
  auto context = read_context(xen, from, vcpu);
  Status down = context ? xen.take_down(from, vcpu) : Status{};
  Status running = xen.unpause(from);
  if (!down) return down.error();
  if (context && !running) return running.error();
  return context;
}

Status put_vcpu(XenCalls& xen, DomainId to, const VcpuContext& context, std::uint64_t away_ns) {
  const auto khz = xen.tsc_khz(to);
  if (!khz) return khz.error();
  // In two steps, so that no product is too long.
  const std::uint64_t ticks = away_ns / 1'000'000 * *khz + away_ns % 1'000'000 * *khz / 1'000'000;
  std::vector<std::byte> records = context.records;
  if (Status moved = advance_tsc(records, ticks); !moved) return moved;
  return xen.set_context(to, records);
}

}  // namespace xenspan::hypervisor::xen
