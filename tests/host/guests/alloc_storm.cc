// Memory: malloc, calloc, realloc and free of 16 B to 64 MiB in four threads, with contents checked
// and blocks freed by other threads than made them; then mmap, munmap, mremap, mprotect and madvise
// directly.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "require.h"

namespace {

constexpr unsigned kThreads = 4;
constexpr std::size_t kPage = 4096;

struct Block {
  std::uint8_t* start;
  std::size_t bytes;
  std::uint8_t mark;
};

// Both ends and a byte of each page.
void fill(const Block& block) {
  for (std::size_t at = 0; at < block.bytes; at += kPage) block.start[at] = block.mark;
  block.start[block.bytes - 1] = block.mark;
}
void check(const Block& block, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += kPage) REQUIRE(block.start[at] == block.mark);
}

class Mailbox {
 public:
  void put(Block block) {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
  }
  std::vector<Block> take_all() {
    const std::lock_guard lock(mutex_);
    return std::exchange(blocks_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<Block> blocks_;
} mailboxes[kThreads];

std::atomic<std::uint64_t> freed{0};

void release(const std::vector<Block>& blocks) {
  for (const Block& block : blocks) {
    check(block, block.bytes);
    REQUIRE(block.start[block.bytes - 1] == block.mark);
    std::free(block.start);
    ++freed;
  }
}

constexpr int kRounds = 1200;

void storm(unsigned me) {
  std::mt19937 random(me + 1);
  std::vector<Block> own;
  for (int round = 0; round < kRounds; ++round) {
    // Mostly small; now and then up to 64 MiB.
    unsigned order = 4 + random() % 12;
    if (round % 50 == 0) order = 16 + random() % 7;
    if (round == 600) order = 26;
    const std::size_t bytes = (std::size_t{1} << order) - (order < 26 ? random() % 15 : 0);
    Block block{nullptr, bytes, static_cast<std::uint8_t>(1 + random() % 255)};
    if (random() % 4 == 0) {
      block.start = static_cast<std::uint8_t*>(std::calloc(1, bytes));
      REQUIRE(block.start != nullptr);
      for (std::size_t at = 0; at < bytes; at += 97) REQUIRE(block.start[at] == 0);
    } else {
      block.start = static_cast<std::uint8_t*>(std::malloc(bytes));
      REQUIRE(block.start != nullptr);
    }
    REQUIRE(reinterpret_cast<std::uintptr_t>(block.start) % 16 == 0);
    fill(block);
    if (random() % 3 == 0 && bytes < (std::size_t{8} << 20)) {
      const std::size_t larger = bytes * 2 + 1;
      block.start = static_cast<std::uint8_t*>(std::realloc(block.start, larger));
      REQUIRE(block.start != nullptr);
      check(block, bytes);
      block.bytes = larger;
      fill(block);
    }
    if (random() % 2 == 0 || bytes > (std::size_t{1} << 20)) {
      mailboxes[(me + 1) % kThreads].put(block);
    } else {
      own.push_back(block);
    }
    if (own.size() > 64) release(std::exchange(own, {}));
    release(mailboxes[me].take_all());
  }
  release(own);
}

std::uint8_t* map(std::size_t pages, int prot = PROT_READ | PROT_WRITE) {
  void* at = mmap(nullptr, pages * kPage, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  return static_cast<std::uint8_t*>(at);
}

// What the kernel makes of a page: can it be read on our behalf?
bool readable(const void* at, int pipe_end) { return write(pipe_end, at, 1) == 1; }

void direct(unsigned me) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  for (unsigned round = 0; round < 30; ++round) {
    const auto mark = static_cast<std::uint8_t>(me * 31 + round + 1);
    std::uint8_t* memory = map(16);
    for (int page = 0; page < 16; ++page) {
      REQUIRE(memory[page * kPage] == 0);
      memory[page * kPage] = mark;
    }
    // Rights are taken and come back; contents stay.
    REQUIRE(mprotect(memory + 4 * kPage, 4 * kPage, PROT_NONE) == 0);
    REQUIRE(!readable(memory + 5 * kPage, ends[1]) && errno == EFAULT);
    REQUIRE(readable(memory, ends[1]));
    REQUIRE(mprotect(memory + 4 * kPage, 4 * kPage, PROT_READ) == 0);
    REQUIRE(memory[5 * kPage] == mark);
    REQUIRE(mprotect(memory + 4 * kPage, 4 * kPage, PROT_READ | PROT_WRITE) == 0);
    memory[5 * kPage] = mark;
    // A moved block keeps its contents; what is new is zero.
    memory = static_cast<std::uint8_t*>(mremap(memory, 16 * kPage, 64 * kPage, MREMAP_MAYMOVE));
    REQUIRE(memory != MAP_FAILED);
    for (int page = 0; page < 64; ++page) REQUIRE(memory[page * kPage] == (page < 16 ? mark : 0));
    REQUIRE(mremap(memory, 64 * kPage, 8 * kPage, 0) == memory);
    // Thrown away, and zero again.
    REQUIRE(madvise(memory + kPage, kPage, MADV_DONTNEED) == 0);
    REQUIRE(memory[0] == mark && memory[kPage] == 0 && memory[2 * kPage] == mark);
    REQUIRE(mmap(memory + 2 * kPage, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                 0) == memory + 2 * kPage);
    REQUIRE(memory[2 * kPage] == 0 && memory[3 * kPage] == mark);
    REQUIRE(munmap(memory + 6 * kPage, 2 * kPage) == 0);
    // Nothing is ever mapped there; a hole made by this thread could be another's mapping by now.
    REQUIRE(mprotect(reinterpret_cast<void*>(0x20000), kPage, PROT_READ) == -1 && errno == ENOMEM);
    REQUIRE(munmap(memory, 6 * kPage) == 0);
    char drain[2];
    REQUIRE(read(ends[0], drain, sizeof drain) == 1);
  }
  close(ends[0]);
  close(ends[1]);
}

// One thread writes through memory another one has just mapped, and unmaps it.
void handed_over() {
  std::atomic<std::uint8_t*> slot{nullptr};
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) {
      std::uint8_t* memory;
      while ((memory = slot.exchange(nullptr)) == nullptr) std::this_thread::yield();
      REQUIRE(memory[0] == static_cast<std::uint8_t>(i) && memory[3 * kPage] == 0);
      REQUIRE(munmap(memory, 4 * kPage) == 0);
    }
  });
  for (int i = 0; i < 100; ++i) {
    std::uint8_t* memory = map(4);
    memory[0] = static_cast<std::uint8_t>(i);
    std::uint8_t* none = nullptr;
    while (!slot.compare_exchange_weak(none, memory)) {
      none = nullptr;
      std::this_thread::yield();
    }
  }
  other.join();
}

// A reservation of much more than there is memory costs nothing until it is used.
void reserve() {
  constexpr std::size_t kReserved = std::size_t{64} << 30;
  void* at =
      mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(at != MAP_FAILED);
  auto* bytes = static_cast<std::uint8_t*>(at) + kReserved / 2;
  REQUIRE(mprotect(bytes, kPage, PROT_READ | PROT_WRITE) == 0);
  bytes[17] = 3;
  REQUIRE(bytes[17] == 3);
  REQUIRE(munmap(at, kReserved) == 0);
}

}  // namespace

int main() {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(storm, i);
  for (std::thread& thread : threads) thread.join();
  for (Mailbox& mailbox : mailboxes) release(mailbox.take_all());
  REQUIRE(freed == kThreads * kRounds);
  threads.clear();
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(direct, i);
  for (std::thread& thread : threads) thread.join();
  handed_over();
  reserve();
  std::printf("ok alloc_storm %lu\n", static_cast<unsigned long>(freed.load()));
}
