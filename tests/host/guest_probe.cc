// guest_probe: the guest of the cases that look at the command line and at failures rather than at
// a result.
//
//   identity FILE   prints user, group, folder and umask; makes FILE
//   exit N          ends with status N
//   crash           writes to address 0x10 in a second thread
//   sleep SECONDS [THREADS]
//                   prints "ready" when all its threads run, then waits
//   work SECONDS    the same, but its threads keep writing one shared page and pages of their own
//   share           prints "ready" when all its threads run; then all of them, the first too, write
//                   the same pages for ever, and the first prints a line now and then
//   free            its threads write the same pages for a while, then the pages are unmapped
//   handle SECONDS  the same as sleep, with a handler of SIGUSR1: prints "signal 10", ends with
//                   status 10
//
// There are as many threads as processors if not told otherwise, so that a domain that spans hosts
// has a thread on each.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

volatile sig_atomic_t got_signal = 0;
std::atomic<bool> enough{false};
std::atomic<unsigned> started{0};
std::atomic<std::uint64_t> shared_count{0};

void on_signal(int number) { got_signal = number; }

int identity(const char* file) {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  char folder[4096];
  if (::getcwd(folder, sizeof folder) == nullptr) return 1;
  const int fd = ::open(file, O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (fd < 0) {
    std::perror(file);
    return 1;
  }
  ::close(fd);
  std::printf("%u %u %s %04o\n", ::getuid(), ::getgid(), folder, static_cast<unsigned>(mask));
  return 0;
}

void wait_in_thread(bool busy) {
  std::vector<unsigned char> own(64 * 4096);
  started++;
  for (std::size_t i = 0; !enough; i++) {
    if (busy) {
      own[i * 4096 % own.size()]++;
      shared_count++;
    } else {
      ::usleep(20'000);
    }
  }
}

int wait(int seconds, bool busy, unsigned count) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; i++) threads.emplace_back(wait_in_thread, busy);
  while (started < count) ::usleep(1000);
  std::puts("ready");
  std::fflush(stdout);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (got_signal == 0 && std::chrono::steady_clock::now() < end) ::usleep(20'000);
  enough = true;
  for (std::thread& thread : threads) thread.join();
  if (got_signal != 0) std::printf("signal %d\n", static_cast<int>(got_signal));
  return got_signal;
}

int share() {
  constexpr std::size_t kPages = 1024;
  static std::atomic<unsigned char> bytes[kPages * 4096];
  // Each goes through the pages in an order of its own, so that at any time every thread has some.
  const auto touch = [](std::size_t round, std::size_t step) {
    bytes[round * step % kPages * 4096]++;
  };
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); i++)
    std::thread([i, touch] {
      started++;
      for (std::size_t round = 0;; round++) touch(round, 2 * i + 1);
    }).detach();
  while (started + 1 < std::thread::hardware_concurrency()) ::usleep(1000);
  std::puts("ready");
  for (std::size_t round = 0;; round++) {
    touch(round, 1);
    if (round % kPages != 0) continue;
    std::puts("going on");
    std::fflush(stdout);
  }
}

int free_pages() {
  constexpr std::size_t kBytes = 32 * 4096;
  void* const memory =
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  auto* const bytes = static_cast<std::atomic<unsigned char>*>(memory);
  std::vector<std::thread> threads;
  std::barrier turn(static_cast<std::ptrdiff_t>(std::thread::hardware_concurrency()));
  for (unsigned i = 0; i < std::thread::hardware_concurrency(); i++)
    threads.emplace_back([bytes, &turn] {
      // Each round takes every page from host to host, however fast a thread is.
      for (int round = 0; round < 40; round++) {
        for (std::size_t at = 0; at < kBytes; at += 4096) bytes[at]++;
        turn.arrive_and_wait();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return ::munmap(memory, kBytes) == 0 ? 0 : 1;
}

int crash() {
  std::thread([] {
    auto* volatile nowhere = reinterpret_cast<volatile int*>(0x10);
    *nowhere = 1;
  }).join();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const char* const argument = argc > 2 ? argv[2] : "";
  if (what == "identity") return identity(argument);
  if (what == "exit") return std::atoi(argument);
  if (what == "crash") return crash();
  if (what == "share") return share();
  if (what == "free") return free_pages();
  if (what == "handle") ::signal(SIGUSR1, on_signal);
  if (what == "sleep" || what == "handle" || what == "work")
    return wait(
        std::atoi(argument), what == "work",
        argc > 3 ? static_cast<unsigned>(std::atoi(argv[3])) : std::thread::hardware_concurrency());
  std::fprintf(stderr, "guest_probe: unknown word '%s'\n", what.c_str());
  return 2;
}
