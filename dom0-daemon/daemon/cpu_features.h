// The processor features a guest program can see and use, as CPUID words.
//
// A thread may start on any host of its domain and a program asks CPUID once, so every remote CPU
// must have all that the home's CPU has. Only bits that change what user code may execute are kept.
// Threading: plain values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace xenspan::daemon {

// Leaf 1 ECX and EDX; leaf 7.0 EBX, ECX and EDX; leaf 7.1 EAX; leaf 0x80000001 ECX and EDX; XCR0.
inline constexpr std::size_t kCpuWords = 9;
using CpuFeatures = std::array<std::uint32_t, kCpuWords>;

CpuFeatures local_cpu_features();
// "1a2b3c4d:...": nine words of eight hex digits.
std::string cpu_features_text(const CpuFeatures& features);
std::optional<CpuFeatures> parse_cpu_features(std::string_view text);
// Names of what `home` has and `remote` lacks ("avx512f avx512bw"); empty when nothing.
std::string missing_features(const CpuFeatures& home, const CpuFeatures& remote);

}  // namespace xenspan::daemon
