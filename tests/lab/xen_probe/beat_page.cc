#include "tests/lab/xen_probe/beat_page.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <bit>
#include <cerrno>

namespace xenspan::lab {
namespace {

// As in beating_pvh.S.
enum Word : std::size_t {
  kRound,
  kBegun,
  kValue,
  kSse,
  kX87,
  kTicks,
  kInterrupts,
  kSent,
  kTsc,
  kTscBack,
  kWrong,
  kSend
};
constexpr dsm::Gfn kGfn = 0x200000 >> dsm::kPageShift;

}  // namespace

std::string wrong_in(const Beat& beat) {
  std::uint64_t value = 1;
  double sse = 1.0;
  for (std::uint64_t round = 0; round < beat.round; ++round) {
    value = value * 6364136223846793005ULL + 1;
    sse *= 1.0000001;
  }
  const double x87 = 3.0 + 0.5 * static_cast<double>(beat.round);
  if (beat.round == 0) return "it has not run";
  if (beat.value != value)
    return fmt::format("integer registers: {:x} and not {:x}", beat.value, value);
  if (beat.sse != sse) return fmt::format("SSE: {:.17g} and not {:.17g}", beat.sse, sse);
  if (beat.x87 != x87) return fmt::format("x87: {:.17g} and not {:.17g}", beat.x87, x87);
  if (beat.wrong_registers != 0)
    return fmt::format("{} times a register had changed", beat.wrong_registers);
  if (beat.tsc_back != 0) return fmt::format("the TSC went back {} times", beat.tsc_back);
  return {};
}

Result<std::unique_ptr<BeatPage>> BeatPage::map(hypervisor::xen::XenCalls& xen,
                                                hypervisor::xen::DomainId domain) {
  void* place = ::mmap(nullptr, dsm::kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) return system_error(errno, "no address");
  if (const int error = xen.map(domain, kGfn, static_cast<std::byte*>(place)); error != 0)
    return system_error(error, fmt::format("cannot map page {:x} of domain {}", kGfn, domain));
  return std::unique_ptr<BeatPage>(new BeatPage(static_cast<std::uint64_t*>(place)));
}

BeatPage::~BeatPage() { ::munmap(words_, dsm::kPageSize); }

Beat BeatPage::read() const {
  Beat beat;
  do {
    beat.round = load(kRound);
    beat.value = load(kValue);
    beat.sse = std::bit_cast<double>(load(kSse));
    beat.x87 = std::bit_cast<double>(load(kX87));
    beat.ticks = load(kTicks);
    beat.interrupts = load(kInterrupts);
    beat.sent = load(kSent);
    beat.tsc = load(kTsc);
    beat.tsc_back = load(kTscBack);
    beat.wrong_registers = load(kWrong);
  } while (load(kBegun) > beat.round + 1 || load(kRound) != beat.round);
  return beat;
}

void BeatPage::send_interrupts(std::uint64_t count) {
  std::atomic_ref(words_[kSend]).store(count, std::memory_order_release);
}

}  // namespace xenspan::lab
