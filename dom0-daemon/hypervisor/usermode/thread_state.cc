#include "dom0-daemon/hypervisor/usermode/thread_state.h"

#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::size_t kLegacyBytes = 416;  // x87, MXCSR and XMM registers of an FXSAVE area
constexpr std::size_t kMxcsrAt = 24, kMxcsrMaskAt = 28;
constexpr std::uint32_t kUsualMxcsrMask = 0xffbf;  // where FXSAVE stores none
constexpr std::size_t kSoftwareAt = 464;           // struct _fpx_sw_bytes (asm/sigcontext.h)
constexpr std::uint32_t kXstateMagic = 0x46505853;
constexpr std::size_t kHeaderAt = 512;  // XSAVE header: its first word says what follows
constexpr std::uint64_t kLegacy = 3;    // x87 and SSE, which a signal frame always has
// Protection keys: the runtime's own, user-mode guests have none.
constexpr std::uint64_t kHostsOwn = std::uint64_t{1} << 9;
constexpr unsigned kFirst = 2, kComponents = 63;
constexpr std::uint64_t kAddressEnd = std::uint64_t{1} << 47;

struct Software {
  std::uint32_t magic, extended_bytes;
  std::uint64_t features;
  std::uint32_t state_bytes;
};

struct Component {
  std::uint32_t bytes = 0, offset = 0;
};

// Where each component lies in an XSAVE area of this processor in its standard form.
struct Layout {
  std::array<Component, kComponents> of{};
  Layout() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_max(0, nullptr) < 13 || __get_cpuid(1, &a, &b, &c, &d) == 0 ||
        (c & bit_OSXSAVE) == 0)
      return;
    unsigned low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const std::uint64_t enabled = (std::uint64_t{high} << 32 | low) & ~(kLegacy | kHostsOwn);
    for (unsigned i = kFirst; i < kComponents; ++i) {
      if ((enabled >> i & 1) == 0) continue;
      __cpuid_count(13, i, a, b, c, d);
      of[i] = {a, b};
    }
  }
};

const Layout& layout() {
  static const Layout found;
  return found;
}

Software software_of(const void* fpregs) {
  Software software{};
  std::memcpy(&software, static_cast<const char*>(fpregs) + kSoftwareAt, sizeof software);
  if (software.magic != kXstateMagic) software = {};
  return software;
}

// One after the other: each(index, bytes, data). False when the packet ends early or a component
// has another size here.
template <typename Each>
bool read_components(Reader& in, Each each) {
  const auto count = in.get<std::uint32_t>();
  if (!in.ok() || count > kComponents) return false;
  std::uint64_t seen = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto index = in.get<std::uint32_t>();
    const auto bytes = in.get<std::uint32_t>();
    if (!in.ok() || index < kFirst || index >= kComponents || (seen >> index & 1) != 0 ||
        bytes == 0 || bytes != layout().of[index].bytes)
      return false;
    seen |= std::uint64_t{1} << index;
    const std::uint8_t* data = in.skip(bytes);
    if (data == nullptr || !each(index, bytes, data)) return false;
  }
  return true;
}

}  // namespace

bool has_extended_state(const void* fpregs) {
  return fpregs != nullptr && software_of(fpregs).magic == kXstateMagic;
}

bool put_vector_state(const void* fpregs, Writer& out) {
  const auto* area = static_cast<const std::uint8_t*>(fpregs);
  out.bytes(area, kLegacyBytes);
  const Software software = software_of(fpregs);
  std::uint64_t present = 0;
  if (software.state_bytes > kHeaderAt) std::memcpy(&present, area + kHeaderAt, sizeof present);
  present &= software.features & ~(kLegacy | kHostsOwn);
  out.put(static_cast<std::uint32_t>(__builtin_popcountll(present)));
  for (unsigned i = kFirst; i < kComponents; ++i) {
    if ((present >> i & 1) == 0) continue;
    const Component& component = layout().of[i];
    if (component.bytes == 0 || component.offset + component.bytes > software.state_bytes)
      return false;
    out.put(std::uint32_t{i}).put(component.bytes).bytes(area + component.offset, component.bytes);
  }
  return present >> kComponents == 0;
}

bool check_vector_state(Reader& in) {
  return in.skip(kLegacyBytes) != nullptr &&
         read_components(in,
                         [](std::uint32_t, std::uint32_t, const std::uint8_t*) { return true; });
}

bool take_vector_state(Reader& in, void* fpregs) {
  auto* area = static_cast<std::uint8_t*>(fpregs);
  const std::uint8_t* legacy = in.skip(kLegacyBytes);
  if (legacy == nullptr) return false;
  std::uint32_t mask = 0, mxcsr = 0;
  std::memcpy(&mask, area + kMxcsrMaskAt, sizeof mask);
  std::memcpy(area, legacy, kLegacyBytes);
  std::memcpy(&mxcsr, area + kMxcsrAt, sizeof mxcsr);
  // A bit that this processor does not have would end the process.
  mxcsr &= mask != 0 ? mask : kUsualMxcsrMask;
  std::memcpy(area + kMxcsrAt, &mxcsr, sizeof mxcsr);
  std::memcpy(area + kMxcsrMaskAt, &mask, sizeof mask);

  const Software software = software_of(fpregs);
  std::uint64_t present = kLegacy;
  const bool done =
      read_components(in, [&](std::uint32_t index, std::uint32_t bytes, const std::uint8_t* data) {
        const std::uint32_t offset = layout().of[index].offset;
        if ((software.features >> index & 1) == 0 || offset + bytes > software.state_bytes)
          return false;
        std::memcpy(area + offset, data, bytes);
        present |= std::uint64_t{1} << index;
        return true;
      });
  if (software.state_bytes > kHeaderAt) {
    std::uint64_t own = 0;
    std::memcpy(&own, area + kHeaderAt, sizeof own);
    present |= own & kHostsOwn;
    std::memcpy(area + kHeaderAt, &present, sizeof present);  // the others are as at the start
  }
  return done;
}

bool check_thread_state(const Packet& packet) {
  Reader in(packet);
  const auto state = in.get<ThreadState>();
  return in.ok() && state.version == kThreadStateVersion && state.bytes == sizeof state &&
         state.fs < kAddressEnd && state.registers.back() < kAddressEnd && check_vector_state(in) &&
         in.empty();
}

}  // namespace xenspan::hypervisor::usermode
