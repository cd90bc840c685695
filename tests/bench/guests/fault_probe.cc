// fault_probe: how long one access to a page takes that another thread has used last. Two threads,
// on two hosts when the domain spans two. It obeys lines on standard input and answers each with
// one line on standard output:
//
//   read N      the other thread has written the page; this thread reads it
//   write N     the other thread has written the page; this thread writes it
//   upgrade N   the other thread has written the page and both have read it; this thread writes it
//   quit
//
//   KIND ns ns ns ...    N samples, one access each, on N pages in random order
//
// Every value read is checked, so a wrong page ends the program with status 1. Natively it measures
// cache misses.
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "timing.h"

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPoolPages = 4096;
constexpr std::size_t kMostSamples = 1024;
constexpr int kMostThreads = 16;

enum class Order : int { kNone, kWrite, kRead, kQuit };

// What one thread tells the other lies on pages of its own, apart from the pages measured.
struct alignas(kPage) Mailbox {
  std::atomic<std::uint32_t> number{0};  // counts orders
  Order order = Order::kNone;
  std::uint64_t value = 0;
  std::size_t count = 0;
  std::array<std::uint32_t, kMostSamples> pages{};
};
struct alignas(kPage) Reply {
  std::atomic<std::uint32_t> number{0};  // the order that is done
  bool wrong = false;
};
struct alignas(kPage) Volunteer {
  std::atomic<int> cpu{-1};
};

Mailbox mailbox;
Reply reply;
std::array<Volunteer, kMostThreads> volunteers;
struct alignas(kPage) Choice {
  std::atomic<int> index{-1};
} choice;
std::byte* pool;

volatile std::uint64_t& word(std::uint32_t page) {
  return *reinterpret_cast<volatile std::uint64_t*>(pool + page * kPage);
}

// The other thread's life: carry out orders until told to quit.
void serve() {
  for (std::uint32_t next = 1;; next++) {
    while (mailbox.number.load(std::memory_order_acquire) != next) _mm_pause();
    for (std::size_t i = 0; i < mailbox.count; i++) {
      auto& target = word(mailbox.pages[i]);
      if (mailbox.order == Order::kWrite) target = mailbox.value + mailbox.pages[i];
      if (mailbox.order == Order::kRead && target != mailbox.value + mailbox.pages[i])
        reply.wrong = true;
    }
    const bool quit = mailbox.order == Order::kQuit;
    reply.number.store(next, std::memory_order_release);
    if (quit) return;
  }
}

void* volunteer(void* argument) {
  const int index = static_cast<int>(reinterpret_cast<std::intptr_t>(argument));
  volunteers[static_cast<std::size_t>(index)].cpu.store(sched_getcpu(), std::memory_order_release);
  while (choice.index.load(std::memory_order_acquire) < 0) sched_yield();
  if (choice.index.load() == index) serve();
  return nullptr;
}

// Starts threads until one finds itself on a processor other than this thread's; that one becomes
// the other thread.
class Partner {
 public:
  bool start() {
    int chosen = -1;
    const int mine = sched_getcpu();
    for (int i = 0; i < kMostThreads && chosen < 0; i++) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, volunteer, reinterpret_cast<void*>(std::intptr_t{i})) !=
          0)
        break;
      threads_.push_back(thread);
      auto& cpu = volunteers[static_cast<std::size_t>(i)].cpu;
      while (cpu.load(std::memory_order_acquire) < 0) sched_yield();
      if (cpu.load() != mine) chosen = i;
    }
    choice.index.store(chosen < 0 ? kMostThreads : chosen, std::memory_order_release);
    return chosen >= 0;
  }
  // Gives an order and waits until it is done.
  void command(Order order, const std::vector<std::uint32_t>& pages, std::uint64_t value) {
    mailbox.order = order;
    mailbox.value = value;
    mailbox.count = pages.size();
    std::copy(pages.begin(), pages.end(), mailbox.pages.begin());
    const std::uint32_t number = mailbox.number.load(std::memory_order_relaxed) + 1;
    mailbox.number.store(number, std::memory_order_release);
    while (reply.number.load(std::memory_order_acquire) != number) _mm_pause();
  }
  void join() {
    for (const pthread_t thread : threads_) pthread_join(thread, nullptr);
  }

 private:
  std::vector<pthread_t> threads_;
};

// Time-stamp counter ticks per nanosecond.
double calibrate() {
  unsigned aux;
  const double start = seconds_now();
  const std::uint64_t first = __rdtscp(&aux);
  while (seconds_now() - start < 0.05) _mm_pause();
  const std::uint64_t last = __rdtscp(&aux);
  return static_cast<double>(last - first) / ((seconds_now() - start) * 1e9);
}

// One ordered access between two reads of the time-stamp counter.
template <typename Access>
std::uint64_t ticks(Access access) {
  unsigned aux;
  _mm_lfence();
  const std::uint64_t first = __rdtscp(&aux);
  _mm_lfence();
  access();
  _mm_mfence();
  const std::uint64_t last = __rdtscp(&aux);
  _mm_lfence();
  return last - first;
}

class Probe {
 public:
  explicit Probe(Partner& partner) : partner_(partner), ticks_per_ns_(calibrate()) {
    std::iota(all_.begin(), all_.end(), 0u);
  }

  // false: a page held a wrong value.
  bool run(const std::string& kind, std::size_t count) {
    value_ += 1'000'000;
    std::shuffle(all_.begin(), all_.end(), random_);
    std::vector<std::uint32_t> pages(all_.begin(),
                                     all_.begin() + static_cast<std::ptrdiff_t>(count));
    partner_.command(Order::kWrite, pages, value_);
    bool right = true;
    if (kind == "upgrade") {
      for (const std::uint32_t page : pages) right &= word(page) == value_ + page;
      partner_.command(Order::kRead, pages, value_);
      right &= !reply.wrong;
    }
    std::shuffle(pages.begin(), pages.end(), random_);
    std::vector<std::uint64_t> samples(count, 1);  // written here, so that it costs nothing below
    for (std::size_t i = 0; i < count; i++) {
      auto& target = word(pages[i]);
      std::uint64_t seen = value_ + pages[i];
      if (kind == "read") {
        samples[i] = ticks([&] { seen = target; });
      } else {
        samples[i] = ticks([&] { target = 1; });
      }
      right &= seen == value_ + pages[i];
    }
    print(kind, samples);
    return right;
  }

 private:
  void print(const std::string& kind, const std::vector<std::uint64_t>& samples) const {
    std::string line = kind;
    for (const std::uint64_t sample : samples) {
      line += ' ';
      line +=
          std::to_string(static_cast<std::uint64_t>(static_cast<double>(sample) / ticks_per_ns_));
    }
    std::puts(line.c_str());
    std::fflush(stdout);
  }

  Partner& partner_;
  double ticks_per_ns_;
  std::uint64_t value_ = 0;
  std::mt19937 random_{12345};
  std::vector<std::uint32_t> all_ = std::vector<std::uint32_t>(kPoolPages);
};

bool obey(Probe& probe, const std::string& line) {
  const std::size_t space = line.find(' ');
  const std::string kind = line.substr(0, space);
  std::size_t count = 0;
  if (space != std::string::npos)
    std::from_chars(&line[space + 1], line.data() + line.size(), count);
  if ((kind != "read" && kind != "write" && kind != "upgrade") || count < 1 ||
      count > kMostSamples) {
    std::fprintf(stderr,
                 "fault_probe: expected read, write or upgrade and a number up to %zu, got '%s'\n",
                 kMostSamples, line.c_str());
    return false;
  }
  if (probe.run(kind, count)) return true;
  std::fprintf(stderr, "fault_probe: a page held a wrong value\n");
  return false;
}

}  // namespace

int main() {
  void* const memory =
      mmap(nullptr, kPoolPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("fault_probe: mmap");
    return 1;
  }
  pool = static_cast<std::byte*>(memory);
  for (std::uint32_t page = 0; page < kPoolPages; page++) word(page) = page;
  Partner partner;
  if (!partner.start()) {
    std::fprintf(stderr,
                 "fault_probe: no thread runs on another processor: give the domain two vCPUs\n");
    partner.join();
    return 1;
  }
  Probe probe(partner);
  bool good = true;
  char line[256];
  std::puts("ready");
  std::fflush(stdout);
  while (good && std::fgets(line, sizeof line, stdin) != nullptr) {
    std::string text(line);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (text == "quit") break;
    good = obey(probe, text);
  }
  partner.command(Order::kQuit, {}, 0);
  partner.join();
  return good ? 0 : 1;
}
