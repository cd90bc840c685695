// pauses MICROSECONDS: a second thread reads the clock without end; every gap between two readings
// that is longer than that is remembered. When standard input ends, prints each as its end and its
// length in seconds, and "end". For xenspan-bench: the gaps while the thread moves to another host.
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "timing.h"

int main(int argc, char** argv) {
  const double least = argc > 1 ? std::atof(argv[1]) * 1e-6 : 100e-6;
  alignas(4096) std::atomic<bool> stop{false};
  alignas(4096) std::vector<std::pair<double, double>> gaps;
  std::atomic<bool> started{false};
  gaps.reserve(1 << 16);
  std::thread reader([&] {
    double last = seconds_now();
    started = true;
    while (!stop) {
      const double now = seconds_now();
      if (now - last > least && gaps.size() < gaps.capacity()) gaps.emplace_back(now, now - last);
      last = now;
    }
  });
  while (!started) usleep(1000);
  std::printf("ready\n");
  std::fflush(stdout);
  char byte;
  while (read(0, &byte, 1) == 1) {
  }
  stop = true;
  reader.join();
  for (const auto& [end, length] : gaps) std::printf("%.9f %.9f\n", end, length);
  std::printf("end\n");
}
