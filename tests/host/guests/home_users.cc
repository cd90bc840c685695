// home_users [until FILE]: threads that use all that a domain's home keeps, until FILE is there
// (none: one round each), while the home may become another host. Whatever is lost, doubled or seen
// of it is found: wake-ups, bytes and offsets of files, mappings, signals, timers, the length of a
// sleep. "home_users.ready" is there as soon as every kind of use has begun; "home_users.map" has a
// number at the end.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ball_table.h"
#include "require.h"

namespace {

// Each on a page of its own: what threads on several hosts write shall not be fought over.
template <typename T>
struct alignas(4096) Apart {
  std::atomic<T> value{};
  operator T() const { return value.load(); }
  T operator=(T wanted) { return value = wanted; }
  T fetch_add(T more) { return value.fetch_add(more); }
};
Apart<bool> stop;
Apart<int> begun;

double now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

timespec in_20_ms(clockid_t clock) {
  timespec until{};
  clock_gettime(clock, &until);
  until.tv_nsec += 20'000'000;
  if (until.tv_nsec >= 1'000'000'000) until.tv_nsec -= 1'000'000'000, ++until.tv_sec;
  return until;
}

BallTable table;

void play(long side) { table.play(side, 50, stop); }

// No wait ends early, and none by a signal that is not there.
void sleeps() {
  constexpr double kLength = 0.02;
  const auto check = [](const char* what, double start, bool right) {
    const double took = now() - start;
    if (right && took >= kLength - 0.0011) return;
    std::fprintf(stderr, "%s: took %.6f s, errno %d\n", what, took, errno);
    exit(1);
  };
  const timespec nap{0, 20'000'000};
  double start = now();
  check("nanosleep", start, nanosleep(&nap, nullptr) == 0);
  start = now();
  timespec until = in_20_ms(CLOCK_MONOTONIC);
  check("clock_nanosleep", start,
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == 0);
  start = now();
  check("poll", start, poll(nullptr, 0, 20) == 0);
  start = now();
  sem_t never;
  sem_init(&never, 0, 0);
  until = in_20_ms(CLOCK_REALTIME);
  check("sem_timedwait", start, sem_timedwait(&never, &until) == -1 && errno == ETIMEDOUT);
  start = now();
  sigset_t winch;
  sigemptyset(&winch);
  sigaddset(&winch, SIGWINCH);
  check("sigtimedwait", start, sigtimedwait(&winch, nullptr, &nap) == -1 && errno == EAGAIN);
}

// One offset for two descriptors, kept open from the first line to the last.
alignas(4096) int log_file = -1;
int log_copy = -1;
long lines = 0;

void write_log() {
  for (int i = 0; i < 20; ++i) {
    const std::string line = std::to_string(lines++) + "\n";
    const int to = i % 2 == 0 ? log_file : log_copy;
    REQUIRE(write(to, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  }
  REQUIRE(lseek(log_file, 0, SEEK_CUR) == lseek(log_copy, 0, SEEK_CUR));
}

// Files come and go, below this directory and by relative paths.
void use_files() {
  static const pid_t pid = getpid();
  REQUIRE(getpid() == pid && getpgid(pid) >= 0 && getsid(pid) >= 0);
  errno = 0;
  REQUIRE(getpriority(PRIO_PROCESS, static_cast<id_t>(pid)) != -1 || errno == 0);
  rlimit limit{};
  REQUIRE(prlimit(pid, RLIMIT_NOFILE, nullptr, &limit) == 0 && limit.rlim_cur > 0);
  const std::string text(3 << 20, 'x');  // more than one round of a long transfer
  const int file = open("home_users.scratch", O_RDWR | O_CREAT | O_TRUNC, 0600);
  REQUIRE(file >= 0);
  REQUIRE(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  std::string back(text.size(), '\0');
  REQUIRE(lseek(file, 0, SEEK_SET) == 0);
  REQUIRE(read(file, back.data(), back.size()) == static_cast<ssize_t>(back.size()));
  REQUIRE(back == text);
  struct stat status {};
  REQUIRE(stat("home_users.scratch", &status) == 0 && status.st_size == 3 << 20);
  REQUIRE(close(file) == 0);
  usleep(1000);
}

// Memory is mapped, changed and given back; what was there is gone then.
void map() {
  constexpr std::size_t kBytes = 1 << 20;
  auto* memory = static_cast<std::uint32_t*>(
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(memory != MAP_FAILED);
  for (std::size_t i = 0; i < kBytes / 4; i += 512) {
    REQUIRE(memory[i] == 0);
    memory[i] = static_cast<std::uint32_t>(i) + 1;
  }
  REQUIRE(mprotect(memory, kBytes / 2, PROT_READ) == 0);
  REQUIRE(madvise(reinterpret_cast<char*>(memory) + kBytes / 2, kBytes / 2, MADV_DONTNEED) == 0);
  for (std::size_t i = 0; i < kBytes / 4; i += 512)
    REQUIRE(memory[i] == (i < kBytes / 8 ? static_cast<std::uint32_t>(i) + 1 : 0));
  REQUIRE(munmap(memory, kBytes) == 0);
}

void children() {
  int value = 0;
  std::thread child([&value] { value = 42; });
  child.join();
  REQUIRE(value == 42);
}

// Waits for the whole time: for another thread, for a signal, for input that never comes.
std::mutex gate;
std::condition_variable opened;
Apart<long> alarms, taken, handled;
Apart<pthread_t> target;
Apart<bool> enough;  // of the signals that are waited for

void wait_for_the_end() {
  begun.fetch_add(1);
  std::unique_lock guard(gate);
  opened.wait(guard, [] { return bool{stop}; });
}

void take_signals() {
  sigset_t usr2;
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  begun.fetch_add(1);
  int number = 0;
  while (!enough) {
    REQUIRE(sigwait(&usr2, &number) == 0 && number == SIGUSR2);
    taken.fetch_add(1);
  }
}

void on_signal(int number) { (number == SIGALRM ? alarms : handled).fetch_add(1); }

// Computes, and is signalled.
void be_signalled() {
  target = pthread_self();
  begun.fetch_add(1);
  double value = 1;
  while (!stop || handled == 0) {
    for (int i = 0; i < 100'000; ++i) value = value / 2 + 1;
    REQUIRE(value > 1.4 && value < 2.1);
  }
  target = pthread_t{};
}

// Each signal arrives once: the next one is sent when it has.
void send_signals(pthread_t waiter) {
  const long before = taken;
  REQUIRE(pthread_kill(waiter, SIGUSR2) == 0);
  while (taken == before) usleep(500);
  REQUIRE(taken == before + 1);
  if (const pthread_t thread = target; thread != pthread_t{}) {
    const long seen = handled;
    pthread_kill(thread, SIGUSR1);
    while (handled == seen && target != pthread_t{}) usleep(500);
    REQUIRE(handled <= seen + 1);
  }
  usleep(1000);
}

void check_log() {
  FILE* file = fopen("home_users.log", "r");
  REQUIRE(file != nullptr);
  long number = 0, expected = 0;
  while (fscanf(file, "%ld", &number) == 1) REQUIRE(number == expected++);
  REQUIRE(expected == lines && lines > 0);
  fclose(file);
}

bool is_there(const char* path) {
  struct stat status {};
  return stat(path, &status) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  log_file = open("home_users.log", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  REQUIRE(log_file >= 0 && (log_copy = dup(log_file)) >= 0);
  const int shared_file = open("home_users.map", O_RDWR | O_CREAT | O_TRUNC, 0600);
  REQUIRE(shared_file >= 0 && ftruncate(shared_file, 8192) == 0);
  auto* shared = static_cast<volatile long*>(
      mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, shared_file, 0));
  REQUIRE(shared != MAP_FAILED && close(shared_file) == 0);

  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  REQUIRE(sigaction(SIGUSR1, &action, nullptr) == 0);
  REQUIRE(sigaction(SIGALRM, &action, nullptr) == 0);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigaddset(&set, SIGALRM);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);

  std::vector<std::thread> all;
  all.emplace_back(wait_for_the_end);
  all.emplace_back(be_signalled);
  std::thread taker(take_signals);
  const pthread_t waiter = taker.native_handle();
  const auto repeat = [&all](auto work) {
    all.emplace_back([work] {
      work();
      begun.fetch_add(1);
      while (!stop) work();
    });
  };
  repeat([] { play(0); });
  repeat([] { play(1); });
  repeat(sleeps);
  repeat(write_log);
  repeat(use_files);
  repeat(map);
  repeat(children);
  std::thread sender([waiter] {
    send_signals(waiter);
    begun.fetch_add(1);
    while (!stop) send_signals(waiter);
    enough = true;
    pthread_kill(waiter, SIGUSR2);
  });
  // This thread takes the timer's signals, between naps.
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  REQUIRE(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
  const itimerval often{{0, 20'000}, {0, 20'000}};
  REQUIRE(setitimer(ITIMER_REAL, &often, nullptr) == 0);
  constexpr int kBegun = 11;
  while (begun < kBegun || alarms == 0) usleep(1000);
  close(open("home_users.ready", O_WRONLY | O_CREAT, 0600));
  double clock = now(), date = now(CLOCK_REALTIME);
  long rounds = 0;
  for (const char* end = argc > 2 && strcmp(argv[1], "until") == 0 ? argv[2] : ".";
       !is_there(end);) {
    const double clock_now = now(), date_now = now(CLOCK_REALTIME);
    REQUIRE(clock_now >= clock && date_now > date - 0.1);
    clock = clock_now, date = date_now;
    shared[0] = ++rounds;
    shared[600] = rounds;
    usleep(2000);
  }
  // Timers go on.
  for (const long before = alarms; alarms < before + 2;) usleep(1000);
  stop = true;
  {
    std::lock_guard guard(gate);
    opened.notify_all();
  }
  {
    std::lock_guard guard(table.lock);
    table.turn.notify_all();
  }
  sender.join();
  for (auto& thread : all) thread.join();
  taker.join();
  REQUIRE(shared[0] == rounds && shared[600] == rounds);
  shared[1] = 4711;
  check_log();
  for (const char* file : {"home_users.ready", "home_users.scratch", "home_users.log"})
    unlink(file);
  std::printf("ok home_users\n");
}
