#include "dom0-daemon/hypervisor/xen/vcpu_context.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "base/log.h"
#include "dom0-daemon/hypervisor/xen/reading_widths.h"

namespace xenspan::hypervisor::xen {
namespace {

// Xen reads the TSC of all vCPUs at one moment, soon after it was asked: so a reading is of when it
// was asked, plus a little that is the same for each. One that was interrupted takes longer, by as
// much as a guest may have the processor: it is taken again until two took equally long, and not
// far from the shortest that this process has seen (which is no measure by itself: a Xen that logs
// all about guests writes some 30 lines for each, and takes longer until it is told not to).
constexpr unsigned kMostReadings = 8;
std::atomic<std::uint64_t> shortest_reading{~std::uint64_t{0}};

bool is_short(std::uint64_t ns) {
  std::uint64_t known = shortest_reading.load();
  while (ns < known && !shortest_reading.compare_exchange_weak(known, ns)) {
  }
  return ns <= known || ns - known < known / 2;
}

struct Reading {
  std::vector<std::byte> records;  // of the whole domain
  std::uint64_t ns = 0, width_ns = 0;
};

// The domain is paused.
Result<Reading> read_narrowest(XenCalls& xen, DomainId domain) {
  auto room = xen.room_for_context(domain);
  if (!room) return room.error();
  Reading best;
  ReadingWidths widths;
  for (unsigned i = 0; i < kMostReadings && !(widths.agree() && is_short(widths.shortest())); ++i) {
    const std::uint64_t begin = monotonic_ns();
    const auto filled = xen.read_context(domain, *room);
    if (!filled) return filled.error();
    const std::uint64_t width = monotonic_ns() - begin;
    if (!widths.add(width)) continue;
    best.records.assign(room->begin(), room->begin() + static_cast<std::ptrdiff_t>(*filled));
    best.ns = begin;
    best.width_ns = width;
  }
  return best;
}

Result<VcpuContext> read_vcpu(XenCalls& xen, DomainId from, unsigned vcpu) {
  const auto all = read_narrowest(xen, from);
  if (!all) return all.error();
  const auto records = HvmRecords::parse(all->records);
  if (!records) return records.error();
  auto own = records->of_vcpu(vcpu);
  if (!own) return own.error();
  const auto registers = records->registers(vcpu);
  if (!registers) return registers.error();
  return VcpuContext{vcpu, std::move(*own), *registers, all->ns};
}

Result<TscPoint> read_paused_tsc(XenCalls& xen, DomainId domain, unsigned vcpu) {
  const auto all = read_narrowest(xen, domain);
  if (!all) return all.error();
  const auto records = HvmRecords::parse(all->records);
  if (!records) return records.error();
  const auto registers = records->registers(vcpu);
  if (!registers) return registers.error();
  return TscPoint{registers->tsc, all->ns, all->width_ns};
}

// The vCPUs of the domain that are up, but for one, as they were at that moment.
struct Others {
  std::vector<std::byte> records;
  std::uint64_t ns = 0;
};

Result<Others> read_others(XenCalls& xen, DomainId domain, unsigned vcpu) {
  const auto all = read_narrowest(xen, domain);
  if (!all) return all.error();
  const auto records = HvmRecords::parse(all->records);
  if (!records) return records.error();
  return Others{records->others_than(vcpu), all->ns};
}

// Xen takes every vCPU down that it is not given the registers of: those that are up here go along.
// `behind`: by how much those others are late.
Result<std::vector<std::byte>> set_of(const VcpuContext& context, const Others& others,
                                      unsigned khz, std::int64_t ahead, std::int64_t behind) {
  const std::uint64_t now = monotonic_ns();
  const auto ticks_since = [&](std::uint64_t ns, std::int64_t late) {
    const std::int64_t ticks = ticks_in(static_cast<std::int64_t>(now - ns), khz) + ahead + late;
    return static_cast<std::uint64_t>(std::max<std::int64_t>(ticks, 0));  // time never goes back
  };
  std::vector<std::byte> set = context.records;
  if (Status moved = advance_tsc(set, ticks_since(context.taken_ns, 0)); !moved)
    return moved.error();
  if (others.records.empty()) return set;
  std::vector<std::byte> beside = others.records;
  if (Status moved = advance_tsc(beside, ticks_since(others.ns, behind)); !moved)
    return moved.error();
  if (Status added = add_others(set, beside); !added) return added.error();
  return set;
}

// The domain is paused. It is put with the TSC it should have now, which is late by the time Xen
// takes to load it; the next try makes up for what was missing. What is good enough starts at a
// microsecond and grows with the tries, so that it ends on a machine where no two take equally
// long, too. A try during which somebody else had the processor says nothing about the next one.
Result<TscFit> put_in_step(XenCalls& xen, DomainId to, const VcpuContext& context, unsigned khz,
                           std::int64_t behind) {
  constexpr unsigned kTries = 16;
  const std::int64_t worst_enough = khz / 10 + 1;  // 100 us
  const auto others = read_others(xen, to, context.vcpu);
  if (!others) return others.error();
  TscFit fit;
  std::int64_t ahead = 0, good_enough = khz / 1000 + 1;
  std::uint64_t shortest = ~std::uint64_t{0};
  for (; fit.tries < kTries; good_enough = std::min(2 * good_enough, worst_enough)) {
    const std::uint64_t began = monotonic_ns();
    const auto set = set_of(context, *others, khz, ahead, behind);
    if (!set) return set.error();
    if (Status put = xen.set_context(to, *set); !put) return put.error();
    const std::uint64_t took = monotonic_ns() - began;
    shortest = std::min(shortest, took);
    const auto now = read_paused_tsc(xen, to, context.vcpu);
    if (!now) return now.error();
    const std::uint64_t due =
        context.registers.tsc + static_cast<std::uint64_t>(ticks_in(
                                    static_cast<std::int64_t>(now->ns - context.taken_ns), khz));
    fit.behind = static_cast<std::int64_t>(due - now->tsc);
    ++fit.tries;
    if (std::llabs(fit.behind) <= good_enough) {
      log::debug(
          "the clock of vCPU {} of domain {} is {} ticks behind, after {} tries, and took {} ns",
          context.vcpu, to, fit.behind, fit.tries, now->width_ns);
      return fit;
    }
    if (took < shortest + shortest / 2) ahead += fit.behind;
  }
  log::warning("vCPU {} of domain {} has a clock that is {} ticks behind: this host is too busy",
               context.vcpu, to, fit.behind);
  return fit;
}

}  // namespace

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// In two steps, so that no product is too long.
std::int64_t ticks_in(std::int64_t ns, unsigned khz) {
  return ns / 1'000'000 * khz + ns % 1'000'000 * khz / 1'000'000;
}

Result<VcpuContext> take_vcpu(XenCalls& xen, DomainId from, unsigned vcpu) {
  if (Status paused = xen.pause(from); !paused) return paused.error();
  auto context = read_vcpu(xen, from, vcpu);
  Status down = context ? xen.take_down(from, vcpu) : Status{};
  Status running = xen.unpause(from);
  if (!down) return down.error();
  if (context && !running) return running.error();
  return context;
}

Status make_up_for(VcpuContext& context, std::int64_t behind) {
  const auto ticks = static_cast<std::uint64_t>(behind);  // less than none wraps, as a TSC does
  context.registers.tsc += ticks;
  return advance_tsc(context.records, ticks);
}

Status put_vcpu(XenCalls& xen, DomainId to, const VcpuContext& context, TscFit* fit,
                std::int64_t behind) {
  const auto khz = xen.tsc_khz(to);
  if (!khz) return khz.error();
  if (Status paused = xen.pause(to); !paused) return paused;
  const auto done = put_in_step(xen, to, context, *khz, behind);
  Status down;
  if (!done) down = xen.take_down(to, context.vcpu);
  Status running = xen.unpause(to);
  if (!down) log::warning("{}", down.error().message);
  if (!done) return done.error();
  if (fit != nullptr) *fit = *done;
  return running;
}

Result<TscPoint> read_tsc(XenCalls& xen, DomainId domain, unsigned vcpu) {
  if (Status paused = xen.pause(domain); !paused) return paused.error();
  auto point = read_paused_tsc(xen, domain, vcpu);
  Status running = xen.unpause(domain);
  if (point && !running) return running.error();
  return point;
}

}  // namespace xenspan::hypervisor::xen
