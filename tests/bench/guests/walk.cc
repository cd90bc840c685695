// walk [MIB [ROUNDS]]: one thread writes MIB of memory, the other one then reads it once from end
// to end, a word of every cache line: how fast memory comes that another host owns. Several rounds
// in the same memory; the times are the reader's. seconds= is the median of the rounds after the
// first, fresh= the first one, in which the system has to find memory for the reader's host, too.
#include <algorithm>
#include <barrier>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "timing.h"

int main(int argc, char** argv) {
  const long mib = argc > 1 ? std::atol(argv[1]) : 64;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 6;
  if (mib < 1 || mib > 65536 || rounds < 2) {
    std::fprintf(stderr, "usage: walk [MIB [ROUNDS]]: MIB from 1 to 65536, 2 ROUNDS or more\n");
    return 2;
  }
  constexpr std::size_t kLine = 64 / sizeof(std::uint64_t);
  const std::size_t words = static_cast<std::size_t>(mib) * (1 << 20) / sizeof(std::uint64_t);
  const auto memory = std::make_unique_for_overwrite<std::uint64_t[]>(words);
  std::barrier turn(2);
  std::thread writer([&] {
    for (int round = 0; round < rounds; round++) {
      turn.arrive_and_wait();
      for (std::size_t i = 0; i < words; i++) memory[i] = i * 3 + static_cast<unsigned>(round);
      turn.arrive_and_wait();
    }
  });
  std::vector<double> seconds;
  std::uint64_t sum = 0;
  for (int round = 0; round < rounds; round++) {
    turn.arrive_and_wait();
    turn.arrive_and_wait();
    const double start = seconds_now();
    for (std::size_t i = 0; i < words; i += kLine) {
      sum += *const_cast<volatile std::uint64_t*>(&memory[i]);
    }
    seconds.push_back(seconds_now() - start);
  }
  writer.join();
  const auto second = seconds.begin() + 1, middle = second + (seconds.end() - second) / 2;
  std::nth_element(second, middle, seconds.end());
  std::printf("walk threads=2 seconds=%.6f checksum=%.12e fresh=%.6f\n", *middle,
              static_cast<double>(sum), seconds.front());
  return 0;
}
