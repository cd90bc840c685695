// pauses MICROSECONDS [THREADS]: threads (1) read the clock without end; every gap between two
// readings of a thread that is longer than that is remembered. When standard input ends, prints
// each as its end and its length in seconds, and "end". For xenspan-bench: the gaps while a thread
// moves to another host, or while hosts come and go.
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "timing.h"

namespace {

// On pages of its own.
struct alignas(4096) Reader {
  std::vector<std::pair<double, double>> gaps;
  std::thread thread;
};
alignas(4096) std::atomic<bool> stop{false};
alignas(4096) std::atomic<unsigned> started{0};

void read_clock(Reader& reader, double least) {
  auto& gaps = reader.gaps;
  gaps.reserve(1 << 16);
  double last = seconds_now();
  ++started;
  while (!stop) {
    const double now = seconds_now();
    if (now - last > least && gaps.size() < gaps.capacity()) gaps.emplace_back(now, now - last);
    last = now;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const double least = argc > 1 ? std::atof(argv[1]) * 1e-6 : 100e-6;
  const int count = argc > 2 ? std::atoi(argv[2]) : 1;
  if (count < 1 || count > 64) {
    std::fprintf(stderr, "usage: pauses MICROSECONDS [THREADS]\n");
    return 2;
  }
  std::vector<Reader> readers(static_cast<std::size_t>(count));
  for (Reader& reader : readers)
    reader.thread = std::thread([&reader, least] { read_clock(reader, least); });
  while (started < readers.size()) usleep(1000);
  std::printf("ready\n");
  std::fflush(stdout);
  char byte;
  while (read(0, &byte, 1) == 1) {
  }
  stop = true;
  for (Reader& reader : readers) reader.thread.join();
  for (const Reader& reader : readers)
    for (const auto& [end, length] : reader.gaps) std::printf("%.9f %.9f\n", end, length);
  std::printf("end\n");
}
