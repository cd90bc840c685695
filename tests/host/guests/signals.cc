// Signals: a fault caught and left by siglongjmp, on an alternate stack; siginfo; pthread_kill to a
// chosen thread; masks; a timer's SIGALRM; sigwait; SIGINT to the process; system calls interrupted
// (EINTR) and restarted (SA_RESTART).
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include "require.h"

namespace {

void handle(int number, void (*handler)(int, siginfo_t*, void*), int flags) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  sigemptyset(&action.sa_mask);
  REQUIRE(sigaction(number, &action, nullptr) == 0);
}

// --- faults ---
thread_local sigjmp_buf back;
thread_local void* volatile fault_address;
thread_local volatile int fault_code;

void on_fault(int, siginfo_t* info, void*) {
  fault_address = info->si_addr;
  fault_code = info->si_code;
  siglongjmp(back, 1);
}

void fault_at(volatile char* address, bool writing, int code) {
  if (sigsetjmp(back, 1) == 0) {
    if (writing) {
      *address = 1;
    } else {
      (void)*address;
    }
    REQUIRE(!"the access must fault");
  }
  REQUIRE(fault_address == address);
  REQUIRE(fault_code == code);
}

void faults() {
  handle(SIGSEGV, on_fault, SA_ONSTACK);
  auto* memory = static_cast<char*>(
      mmap(nullptr, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(memory != MAP_FAILED);
  memory[4096] = 5;
  REQUIRE(mprotect(memory + 4096, 4096, PROT_READ) == 0);
  REQUIRE(mprotect(memory + 2 * 4096, 4096, PROT_NONE) == 0);
  const auto all = [memory] {
    // A stack of its own for the handler, as programs that catch stack overflows have.
    static thread_local char space[65536];
    stack_t stack{};
    stack.ss_sp = space;
    stack.ss_size = sizeof space;
    REQUIRE(sigaltstack(&stack, nullptr) == 0);
    for (int i = 0; i < 20; ++i) {
      fault_at(nullptr, true, SEGV_MAPERR);
      fault_at(memory + 4096 + 17, true, SEGV_ACCERR);
      REQUIRE(memory[4096] == 5);
      fault_at(memory + 2 * 4096, false, SEGV_ACCERR);
    }
    stack.ss_flags = SS_DISABLE;
    REQUIRE(sigaltstack(&stack, nullptr) == 0);
  };
  all();
  std::thread(all).join();
  signal(SIGSEGV, SIG_DFL);
  munmap(memory, 3 * 4096);
}

// --- to a thread ---
std::atomic<int> received{0};
std::atomic<pthread_t> receiver{};

void on_user(int number, siginfo_t* info, void*) {
  REQUIRE(number == SIGUSR1 && info->si_code == SI_TKILL);
  receiver = pthread_self();
  ++received;
}

void to_threads() {
  handle(SIGUSR1, on_user, SA_RESTART);
  std::atomic<bool> stop{false};
  std::atomic<int> started{0};
  const auto spin = [&] {
    ++started;
    while (!stop) {
    }
  };
  std::thread first(spin), second(spin);
  while (started < 2) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) {
    const pthread_t target = (i % 2 == 0 ? first : second).native_handle();
    REQUIRE(pthread_kill(target, SIGUSR1) == 0);
    while (received <= i) std::this_thread::yield();
    REQUIRE(pthread_equal(receiver, target));
  }
  stop = true;
  first.join();
  second.join();

  // Blocked, it stays pending until it is let in.
  sigset_t set, pending;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  const int before = received;
  REQUIRE(pthread_kill(pthread_self(), SIGUSR1) == 0);
  REQUIRE(received == before && sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
  REQUIRE(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
  REQUIRE(received == before + 1);
}

// A thread that starts with a signal blocked lets it in later, and makes no other call from then
// on.
void let_in_by_a_spinning_thread() {
  handle(SIGUSR1, on_user, SA_RESTART);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  std::atomic<bool> stop{false};
  std::atomic<int> open{0};
  const auto spin = [&] {
    REQUIRE(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
    ++open;
    while (!stop) {
    }
  };
  std::thread first(spin), second(spin);
  while (open < 2) std::this_thread::yield();
  const int before = received;
  REQUIRE(pthread_kill(first.native_handle(), SIGUSR1) == 0);
  REQUIRE(pthread_kill(second.native_handle(), SIGUSR1) == 0);
  while (received < before + 2) std::this_thread::yield();
  stop = true;
  first.join();
  second.join();
  REQUIRE(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
}

// --- timer ---
std::atomic<int> alarms{0};
void on_alarm(int, siginfo_t*, void*) { ++alarms; }

void timer() {
  handle(SIGALRM, on_alarm, SA_RESTART);
  itimerval every{};
  every.it_interval.tv_usec = every.it_value.tv_usec = 5000;
  REQUIRE(setitimer(ITIMER_REAL, &every, nullptr) == 0);
  double x = 1;
  while (alarms < 5) x = x * 1.000001 + 1e-9;  // registers must survive the handler
  every = {};
  REQUIRE(setitimer(ITIMER_REAL, &every, nullptr) == 0);
  REQUIRE(x >= 1);
}

// --- interrupted and restarted calls ---
void on_nothing(int, siginfo_t*, void*) { ++received; }

void interrupted(bool restart) {
  handle(SIGUSR2, on_nothing, restart ? SA_RESTART : 0);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  received = 0;
  std::atomic<bool> reading{false};
  std::thread reader([&] {
    char byte = 0;
    reading = true;
    const ssize_t got = read(ends[0], &byte, 1);
    if (restart) {
      REQUIRE(got == 1 && byte == 'x');
    } else {
      REQUIRE(got == -1 && errno == EINTR);
    }
  });
  while (!reading) std::this_thread::yield();
  usleep(20000);
  REQUIRE(pthread_kill(reader.native_handle(), SIGUSR2) == 0);
  while (received == 0) std::this_thread::yield();
  usleep(20000);
  if (restart) REQUIRE(write(ends[1], "x", 1) == 1);
  reader.join();
  close(ends[0]);
  close(ends[1]);
}

// --- sigwait and the whole process ---
void waited_for() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGRTMIN + 3);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  std::atomic<int> got[2] = {0, 0};
  std::thread waiter([&] {
    for (auto& slot : got) {
      int number = 0;
      REQUIRE(sigwait(&set, &number) == 0);
      slot = number;
    }
  });
  REQUIRE(kill(getpid(), SIGTERM) == 0);
  while (got[0] == 0) std::this_thread::yield();
  sigval value{};
  REQUIRE(sigqueue(getpid(), SIGRTMIN + 3, value) == 0);
  waiter.join();
  REQUIRE(got[0] == SIGTERM && got[1] == SIGRTMIN + 3);
  REQUIRE(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
}

void to_process() {
  handle(SIGINT, on_nothing, 0);
  received = 0;
  REQUIRE(kill(getpid(), SIGINT) == 0);
  while (received == 0) std::this_thread::yield();
  signal(SIGINT, SIG_IGN);
  REQUIRE(kill(getpid(), SIGINT) == 0);
  signal(SIGINT, SIG_DFL);
}

}  // namespace

int main() {
  faults();
  to_threads();
  let_in_by_a_spinning_thread();
  timer();
  interrupted(false);
  interrupted(true);
  waited_for();
  to_process();
  std::printf("ok signals\n");
}
