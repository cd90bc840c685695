// pieces: threads that take equal pieces of work from one counter until standard input ends, or the
// file END is there, while hosts come and go. Every tenth of a second it prints the time (CLOCK_MONOTONIC, seconds) and how
// many pieces are done; at the end "pieces=N by N,N..." when every piece was done once and is
// right.
//
//   pieces THREADS STEPS [END]     STEPS: of a generator, for one piece. With END standard input is
//                                  not looked at: it may be of a kind that no other host can have.
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr std::uint64_t kA = 6364136223846793005, kC = 1442695040888963407;

// On pages of their own: each is written by one thread.
struct alignas(4096) Worker {
  std::atomic<std::uint64_t> done{0}, wrong{0};
};
struct alignas(4096) Shared {
  std::atomic<std::uint64_t> next{0};
};
struct alignas(4096) Ending {
  std::atomic<bool> stop{false};
};
Shared pieces;
Ending ending;

std::uint64_t by_steps(std::uint64_t x, std::uint64_t steps) {
  for (; steps > 0; --steps) {
    x = x * kA + kC;
    __asm__ volatile("" : "+r"(x));
  }
  return x;
}

// The same by squaring: what a piece has to come to.
std::uint64_t by_squaring(std::uint64_t x, std::uint64_t steps) {
  std::uint64_t a = kA, c = kC;
  for (; steps > 0; steps >>= 1) {
    if ((steps & 1) != 0) x = x * a + c;
    c *= a + 1;
    a *= a;
  }
  return x;
}

void work(Worker& worker, std::uint64_t steps) {
  while (!ending.stop) {
    const std::uint64_t piece = pieces.next.fetch_add(1);
    if (by_steps(piece, steps) != by_squaring(piece, steps)) ++worker.wrong;
    ++worker.done;
  }
}

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4)
    return std::fprintf(stderr, "usage: pieces THREADS STEPS [END]\n"), 2;
  const auto count = std::strtoul(argv[1], nullptr, 10);
  const auto steps = std::strtoull(argv[2], nullptr, 10);
  std::vector<Worker> workers(count);
  std::vector<std::thread> threads;
  for (Worker& worker : workers) threads.emplace_back([&worker, steps] { work(worker, steps); });
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  pollfd input{0, POLLIN, 0};
  char byte;
  for (;;) {
    if (poll(&input, argc == 4 ? 0 : 1, 100) == 1 && read(0, &byte, 1) != 1) break;
    if (argc == 4 && access(argv[3], F_OK) == 0) break;
    std::uint64_t done = 0;
    for (const Worker& worker : workers) done += worker.done;
    std::printf("%.3f %llu\n", now(), static_cast<unsigned long long>(done));
  }
  ending.stop = true;
  for (auto& thread : threads) thread.join();
  std::uint64_t done = 0, wrong = 0;
  for (const Worker& worker : workers) done += worker.done, wrong += worker.wrong;
  if (wrong != 0 || done != pieces.next)
    return std::printf("%llu of %llu pieces are wrong\n", static_cast<unsigned long long>(wrong),
                       static_cast<unsigned long long>(pieces.next.load())),
           1;
  std::printf("pieces=%llu by ", static_cast<unsigned long long>(done));
  for (const Worker& worker : workers)
    std::printf("%s%llu", &worker == workers.data() ? "" : ",",
                static_cast<unsigned long long>(worker.done));
  std::printf("\n");
}
