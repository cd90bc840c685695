#include "dom0-daemon/daemon/cpu_features.h"

#include <cpuid.h>
#include <fmt/format.h>

#include <charconv>

namespace xenspan::daemon {
namespace {

enum Word : std::size_t {
  kLeaf1Ecx,
  kLeaf1Edx,
  kLeaf7Ebx,
  kLeaf7Ecx,
  kLeaf7Edx,
  kLeaf71Eax,
  kExtendedEcx,
  kExtendedEdx,
  kXcr0,
};

struct Feature {
  Word word;
  int bit;
  const char* name;
};

// Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. Names as in /proc/cpuinfo.
constexpr Feature kFeatures[] = {
    {kLeaf1Ecx, 0, "sse3"},
    {kLeaf1Ecx, 1, "pclmulqdq"},
    {kLeaf1Ecx, 9, "ssse3"},
    {kLeaf1Ecx, 12, "fma"},
    {kLeaf1Ecx, 13, "cx16"},
    {kLeaf1Ecx, 19, "sse4_1"},
    {kLeaf1Ecx, 20, "sse4_2"},
    {kLeaf1Ecx, 22, "movbe"},
    {kLeaf1Ecx, 23, "popcnt"},
    {kLeaf1Ecx, 25, "aes"},
    {kLeaf1Ecx, 27, "osxsave"},
    {kLeaf1Ecx, 28, "avx"},
    {kLeaf1Ecx, 29, "f16c"},
    {kLeaf1Ecx, 30, "rdrand"},
    {kLeaf1Edx, 0, "fpu"},
    {kLeaf1Edx, 4, "tsc"},
    {kLeaf1Edx, 8, "cx8"},
    {kLeaf1Edx, 15, "cmov"},
    {kLeaf1Edx, 19, "clflush"},
    {kLeaf1Edx, 23, "mmx"},
    {kLeaf1Edx, 24, "fxsr"},
    {kLeaf1Edx, 25, "sse"},
    {kLeaf1Edx, 26, "sse2"},
    {kLeaf7Ebx, 0, "fsgsbase"},
    {kLeaf7Ebx, 3, "bmi1"},
    {kLeaf7Ebx, 4, "hle"},
    {kLeaf7Ebx, 5, "avx2"},
    {kLeaf7Ebx, 8, "bmi2"},
    {kLeaf7Ebx, 9, "erms"},
    {kLeaf7Ebx, 11, "rtm"},
    {kLeaf7Ebx, 16, "avx512f"},
    {kLeaf7Ebx, 17, "avx512dq"},
    {kLeaf7Ebx, 18, "rdseed"},
    {kLeaf7Ebx, 19, "adx"},
    {kLeaf7Ebx, 21, "avx512ifma"},
    {kLeaf7Ebx, 23, "clflushopt"},
    {kLeaf7Ebx, 24, "clwb"},
    {kLeaf7Ebx, 26, "avx512pf"},
    {kLeaf7Ebx, 27, "avx512er"},
    {kLeaf7Ebx, 28, "avx512cd"},
    {kLeaf7Ebx, 29, "sha_ni"},
    {kLeaf7Ebx, 30, "avx512bw"},
    {kLeaf7Ebx, 31, "avx512vl"},
    {kLeaf7Ecx, 0, "prefetchwt1"},
    {kLeaf7Ecx, 1, "avx512vbmi"},
    {kLeaf7Ecx, 4, "ospke"},
    {kLeaf7Ecx, 5, "waitpkg"},
    {kLeaf7Ecx, 6, "avx512_vbmi2"},
    {kLeaf7Ecx, 8, "gfni"},
    {kLeaf7Ecx, 9, "vaes"},
    {kLeaf7Ecx, 10, "vpclmulqdq"},
    {kLeaf7Ecx, 11, "avx512_vnni"},
    {kLeaf7Ecx, 12, "avx512_bitalg"},
    {kLeaf7Ecx, 14, "avx512_vpopcntdq"},
    {kLeaf7Ecx, 22, "rdpid"},
    {kLeaf7Ecx, 25, "cldemote"},
    {kLeaf7Ecx, 27, "movdiri"},
    {kLeaf7Ecx, 28, "movdir64b"},
    {kLeaf7Edx, 2, "avx512_4vnniw"},
    {kLeaf7Edx, 3, "avx512_4fmaps"},
    {kLeaf7Edx, 4, "fsrm"},
    {kLeaf7Edx, 8, "avx512_vp2intersect"},
    {kLeaf7Edx, 14, "serialize"},
    {kLeaf7Edx, 22, "amx_bf16"},
    {kLeaf7Edx, 23, "avx512_fp16"},
    {kLeaf7Edx, 24, "amx_tile"},
    {kLeaf7Edx, 25, "amx_int8"},
    {kLeaf71Eax, 0, "sha512"},
    {kLeaf71Eax, 4, "avx_vnni"},
    {kLeaf71Eax, 5, "avx512_bf16"},
    {kLeaf71Eax, 21, "amx_fp16"},
    {kLeaf71Eax, 23, "avx_ifma"},
    {kExtendedEcx, 0, "lahf_lm"},
    {kExtendedEcx, 5, "abm"},
    {kExtendedEcx, 6, "sse4a"},
    {kExtendedEcx, 7, "misalignsse"},
    {kExtendedEcx, 8, "3dnowprefetch"},
    {kExtendedEcx, 11, "xop"},
    {kExtendedEcx, 16, "fma4"},
    {kExtendedEcx, 21, "tbm"},
    {kExtendedEdx, 22, "mmxext"},
    {kExtendedEdx, 27, "rdtscp"},
    {kExtendedEdx, 30, "3dnowext"},
    {kExtendedEdx, 31, "3dnow"},
    {kXcr0, 1, "xsave-sse"},
    {kXcr0, 2, "xsave-avx"},
    {kXcr0, 5, "xsave-opmask"},
    {kXcr0, 6, "xsave-zmm-hi256"},
    {kXcr0, 7, "xsave-hi16-zmm"},
    {kXcr0, 9, "xsave-pkru"},
    {kXcr0, 17, "xsave-amx-tilecfg"},
    {kXcr0, 18, "xsave-amx-tiledata"},
};

std::uint32_t read_xcr0() {
  std::uint32_t low;
  std::uint32_t high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

}  // namespace

CpuFeatures local_cpu_features() {
  CpuFeatures words{};
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) {
    words[kLeaf1Ecx] = c;
    words[kLeaf1Edx] = d;
    if ((c & bit_OSXSAVE) != 0) words[kXcr0] = read_xcr0();
  }
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    words[kLeaf7Ebx] = b;
    words[kLeaf7Ecx] = c;
    words[kLeaf7Edx] = d;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) words[kLeaf71Eax] = a;
  }
  if (__get_cpuid(0x80000001, &a, &b, &c, &d)) {
    words[kExtendedEcx] = c;
    words[kExtendedEdx] = d;
  }
  CpuFeatures known{};
  for (const Feature& feature : kFeatures)
    known[feature.word] |= words[feature.word] & (1u << feature.bit);
  return known;
}

std::string cpu_features_text(const CpuFeatures& features) {
  std::string text;
  for (const std::uint32_t word : features)
    text += fmt::format("{}{:08x}", text.empty() ? "" : ":", word);
  return text;
}

std::optional<CpuFeatures> parse_cpu_features(std::string_view text) {
  CpuFeatures features{};
  if (text.size() != kCpuWords * 9 - 1) return std::nullopt;
  for (std::size_t i = 0; i < kCpuWords; ++i) {
    const char* first = text.data() + i * 9;
    const auto [rest, error] = std::from_chars(first, first + 8, features[i], 16);
    if (error != std::errc{} || rest != first + 8) return std::nullopt;
    if (i + 1 < kCpuWords && *rest != ':') return std::nullopt;
  }
  return features;
}

std::string missing_features(const CpuFeatures& home, const CpuFeatures& remote) {
  std::string names;
  for (const Feature& feature : kFeatures) {
    const std::uint32_t mask = 1u << feature.bit;
    if ((home[feature.word] & mask) == 0 || (remote[feature.word] & mask) != 0) continue;
    if (!names.empty()) names += ' ';
    names += feature.name;
  }
  return names;
}

}  // namespace xenspan::daemon
