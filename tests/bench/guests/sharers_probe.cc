// What a write costs that takes copies away from other hosts. One thread on each processor: the
// first waits for orders, the second writes, the others read.
//
// Reads from standard input: "write READERS COUNT". For COUNT pages: the writer writes them,
// READERS other threads read them, then each is written once more, in any order, one by one. Prints
// "write" and the nanoseconds of each. "quit" ends it.
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "timing.h"

namespace {

constexpr std::size_t kPage = 4096;
constexpr unsigned kMostThreads = 64, kMostPages = 256;
constexpr unsigned kStride = 16;  // pages of one block have one manager: each page from another one

// A mailbox for each thread, on a page of its own.
struct alignas(kPage) Worker {
  std::atomic<std::uint32_t> order{0}, done{0};
  std::atomic<int> cpu{-1};
  enum class What { kWrite, kRead, kTime, kQuit } what = What::kQuit;
  unsigned count = 0;
  std::uint64_t value = 0;
  bool wrong = false;
  std::array<std::uint64_t, kMostPages> ns{};
};

std::byte* pool;
volatile std::uint64_t& word(unsigned index) {
  return *reinterpret_cast<volatile std::uint64_t*>(pool + std::size_t{index} * kStride * kPage);
}

void time_writes(Worker& self) {
  std::array<unsigned, kMostPages> pages;
  for (unsigned i = 0; i < self.count; ++i) pages[i] = i;
  std::mt19937 random(static_cast<unsigned>(self.value));
  std::shuffle(pages.begin(), pages.begin() + self.count, random);
  for (unsigned i = 0; i < self.count; ++i) {
    const double start = seconds_now();
    word(pages[i]) = self.value;
    self.ns[i] = static_cast<std::uint64_t>((seconds_now() - start) * 1e9);
  }
}

void work(Worker& self) {
  self.cpu.store(sched_getcpu());
  self.cpu.notify_all();
  for (std::uint32_t next = 1;; ++next) {
    self.order.wait(next - 1);
    switch (self.what) {
      case Worker::What::kWrite:
        for (unsigned i = 0; i < self.count; ++i) word(i) = self.value + i;
        break;
      case Worker::What::kRead:
        for (unsigned i = 0; i < self.count; ++i) self.wrong |= word(i) != self.value + i;
        break;
      case Worker::What::kTime: time_writes(self); break;
      case Worker::What::kQuit: break;
    }
    const bool quit = self.what == Worker::What::kQuit;
    self.done.store(next);
    self.done.notify_all();
    if (quit) return;
  }
}

class Crew {
 public:
  explicit Crew(unsigned size) : workers_(size) {
    for (Worker& each : workers_) threads_.emplace_back([&each] { work(each); });
    for (Worker& each : workers_) each.cpu.wait(-1);
  }
  ~Crew() {
    for (unsigned i = 0; i < workers_.size(); ++i) command(i, i + 1, Worker::What::kQuit, 0, 0);
    for (std::thread& each : threads_) each.join();
  }
  bool spread() const {
    std::set<int> cpus{sched_getcpu()};
    for (const Worker& each : workers_) cpus.insert(each.cpu.load());
    return cpus.size() == workers_.size() + 1;
  }
  // Workers [first, end) at the same time.
  void command(unsigned first, unsigned end, Worker::What what, unsigned count,
               std::uint64_t value) {
    for (unsigned i = first; i < end; ++i) {
      Worker& worker = workers_[i];
      worker.what = what;
      worker.count = count;
      worker.value = value;
      worker.order.fetch_add(1);
      worker.order.notify_all();
    }
    for (unsigned i = first; i < end; ++i) {
      Worker& worker = workers_[i];
      for (std::uint32_t done; (done = worker.done.load()) != worker.order.load();)
        worker.done.wait(done);
    }
  }
  Worker& operator[](unsigned index) { return workers_[index]; }
  unsigned size() const { return static_cast<unsigned>(workers_.size()); }

 private:
  std::vector<Worker> workers_;
  std::vector<std::thread> threads_;
};

bool measure(Crew& crew, unsigned readers, unsigned count, std::uint64_t value) {
  crew.command(0, 1, Worker::What::kWrite, count, value);
  crew.command(1, readers + 1, Worker::What::kRead, count, value);
  crew.command(0, 1, Worker::What::kTime, count, value);
  std::printf("write");
  for (unsigned i = 0; i < count; ++i)
    std::printf(" %lu", static_cast<unsigned long>(crew[0].ns[i]));
  std::puts("");
  std::fflush(stdout);
  bool right = true;
  for (unsigned i = 1; i <= readers; ++i) right = right && !crew[i].wrong;
  return right;
}

}  // namespace

int main() {
  const unsigned cpus = std::thread::hardware_concurrency();
  void* const memory = mmap(nullptr, std::size_t{kMostPages} * kStride * kPage,
                            PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || cpus < 3 || cpus > kMostThreads) {
    std::fprintf(stderr, "sharers_probe: needs memory and 3 to %u processors\n", kMostThreads);
    return 1;
  }
  pool = static_cast<std::byte*>(memory);
  Crew crew(cpus - 1);
  if (!crew.spread()) {
    std::fprintf(stderr, "sharers_probe: two threads share a processor\n");
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  std::uint64_t value = 0;
  for (char line[256]; std::fgets(line, sizeof line, stdin) != nullptr;) {
    unsigned readers, count;
    if (std::sscanf(line, "write %u %u", &readers, &count) != 2) break;
    if (readers < 1 || readers >= crew.size() || count < 1 || count > kMostPages) {
      std::fprintf(stderr, "sharers_probe: from 1 to %u readers and %u pages\n", crew.size() - 1,
                   kMostPages);
      return 1;
    }
    if (!measure(crew, readers, count, value += 1'000'000)) {
      std::fprintf(stderr, "sharers_probe: a page held a wrong value\n");
      return 1;
    }
  }
  return 0;
}
