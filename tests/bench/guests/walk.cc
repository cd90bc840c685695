// walk [MIB]: one thread writes MIB of memory, the other one then reads it once from end to end, a
// word of every cache line: how fast memory comes that another host owns. The time is the
// reader's.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "timing.h"

int main(int argc, char** argv) {
  const long mib = argc > 1 ? std::atol(argv[1]) : 64;
  if (mib < 1 || mib > 65536) {
    std::fprintf(stderr, "usage: walk [MIB]: from 1 to 65536\n");
    return 2;
  }
  constexpr std::size_t kLine = 64 / sizeof(std::uint64_t);
  const std::size_t words = static_cast<std::size_t>(mib) * (1 << 20) / sizeof(std::uint64_t);
  const auto memory = std::make_unique_for_overwrite<std::uint64_t[]>(words);
  std::thread writer([&] {
    for (std::size_t i = 0; i < words; i++) memory[i] = i * 3 + 1;
  });
  writer.join();

  const double start = seconds_now();
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words; i += kLine) {
    sum += *const_cast<volatile std::uint64_t*>(&memory[i]);
  }
  const double seconds = seconds_now() - start;
  print_result("walk", 2, seconds, static_cast<double>(sum));
  return 0;
}
