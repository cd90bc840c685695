/* Every register is as it was after a page comes from another host and after a system call, with
 * signals in between: general registers, flags, and all sixteen vector registers in full width. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

#include "require.h"

enum { kPage = 4096, kPages = 48, kRounds = 200 };

struct Saved {
  uint64_t flags, general[15];
  unsigned char vectors[16][32];
};
/* Loads all registers with what is in `from` (general[] in the order pushed below, the first is
 * rax), does one thing, and saves them in `to`. `place` is in rdi while it is done. */
void across_store(const struct Saved* from, struct Saved* to, void* place);
void across_call(const struct Saved* from, struct Saved* to, void* place);
void across_store_avx(const struct Saved* from, struct Saved* to, void* place);
void across_call_avx(const struct Saved* from, struct Saved* to, void* place);

__asm__(
    ".macro EACH move, kind, direction\n"
    "  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
    "    .ifc \\direction, load\n"
    "      \\move 128+32*\\n(%rax), %\\kind\\n\n"
    "    .else\n"
    "      \\move %\\kind\\n, 128+32*\\n(%rax)\n"
    "    .endif\n"
    "  .endr\n"
    ".endm\n"
    ".macro ACROSS name, move, kind, what:vararg\n"
    "  .globl \\name\n"
    "  .type \\name, @function\n"
    "\\name:\n"
    "  pushq %rbx\n  pushq %rbp\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  pushq %rsi\n"
    "  movq %rdi, %rax\n"
    "  EACH \\move, \\kind, load\n"
    "  pushq 0(%rax)\n"
    "  movq 16(%rax), %rcx\n  movq 32(%rax), %rsi\n  movq 40(%rax), %rbx\n  movq 48(%rax), %rbp\n"
    "  movq 56(%rax), %r8\n  movq 64(%rax), %r9\n  movq 72(%rax), %r10\n  movq 80(%rax), %r11\n"
    "  movq 88(%rax), %r12\n  movq 96(%rax), %r13\n  movq 104(%rax), %r14\n  movq 112(%rax), %r15\n"
    "  movq %rdx, %rdi\n"
    "  movq 24(%rax), %rdx\n  movq 8(%rax), %rax\n"
    "  popfq\n"
    "  \\what\n"
    "  pushq %rax\n"
    "  pushfq\n"
    "  cld\n"
    "  movq 16(%rsp), %rax\n"
    "  popq 0(%rax)\n"
    "  popq 8(%rax)\n"
    "  movq %rcx, 16(%rax)\n  movq %rdx, 24(%rax)\n  movq %rsi, 32(%rax)\n  movq %rbx, 40(%rax)\n"
    "  movq %rbp, 48(%rax)\n  movq %r8, 56(%rax)\n  movq %r9, 64(%rax)\n  movq %r10, 72(%rax)\n"
    "  movq %r11, 80(%rax)\n  movq %r12, 88(%rax)\n  movq %r13, 96(%rax)\n  movq %r14, 104(%rax)\n"
    "  movq %r15, 112(%rax)\n  movq %rdi, 120(%rax)\n"
    "  EACH \\move, \\kind, store\n"
    "  popq %rsi\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbp\n  popq %rbx\n"
    "  ret\n"
    "  .size \\name, . - \\name\n"
    ".endm\n"
    ".text\n"
    "ACROSS across_store, movups, xmm, movb $7, (%rdi)\n"
    "ACROSS across_call, movups, xmm, syscall\n"
    "ACROSS across_store_avx, vmovups, ymm, movb $7, (%rdi)\n"
    "ACROSS across_call_avx, vmovups, ymm, syscall\n");

static unsigned char* memory;
static atomic_int turn; /* even: the main thread's; odd: the other's */
static atomic_int seen; /* signals */
static atomic_bool over;
static volatile double disturbed = 1;

static void on_signal(int number) {
  (void)number;
  disturbed = disturbed * 1.5 + 1; /* vector registers */
  if (disturbed > 1e6) disturbed = 1;
  atomic_fetch_add(&seen, 1);
}

static void* take_pages(void* unused) {
  (void)unused;
  for (int round = 0; round < kRounds; ++round) {
    while (atomic_load(&turn) != 2 * round + 1)
      ;
    for (int page = 0; page < kPages; ++page) memory[page * kPage] = (unsigned char)round;
    atomic_store(&turn, 2 * round + 2);
  }
  return NULL;
}

static void* send_signals(void* to) {
  while (!atomic_load(&over)) {
    pthread_kill(*(pthread_t*)to, SIGUSR1);
    const struct timespec pause = {0, 200000};
    nanosleep(&pause, NULL);
  }
  return NULL;
}

static void fill(struct Saved* saved, uint64_t seed) {
  for (int i = 0; i < 15; ++i) saved->general[i] = seed * 0x9e3779b97f4a7c15u + (uint64_t)i;
  for (int i = 0; i < 16; ++i) memset(saved->vectors[i], (int)(seed + (uint64_t)i) & 0xff, 32);
  /* Carry, parity, zero, sign, direction and overflow, as the seed says; bits 1 and 9 are always
   * there. */
  saved->flags = 0x202 | ((seed * 0x9e37) & 0xcc5);
}

static void require_same(const struct Saved* before, const struct Saved* after, size_t width) {
  REQUIRE(memcmp(before->general, after->general, sizeof before->general) == 0);
  REQUIRE(before->flags == after->flags);
  for (int i = 0; i < 16; ++i) REQUIRE(memcmp(before->vectors[i], after->vectors[i], width) == 0);
}

int main(void) {
  __builtin_cpu_init();
  const int avx = __builtin_cpu_supports("avx");
  const size_t width = avx ? 32 : 16;
  memory = aligned_alloc(kPage, (size_t)kPages * kPage);
  REQUIRE(memory != NULL);
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
  pthread_t self = pthread_self(), other, sender;
  REQUIRE(pthread_create(&other, NULL, take_pages, NULL) == 0);
  REQUIRE(pthread_create(&sender, NULL, send_signals, &self) == 0);
  /* Natively all of it may be over before another thread has had its turn. */
  while (atomic_load(&seen) == 0)
    ;
  uint64_t seed = 1;
  for (int round = 0; round < kRounds; ++round) {
    atomic_store(&turn, 2 * round + 1);
    while (atomic_load(&turn) != 2 * round + 2)
      ;
    for (int page = 0; page < kPages; ++page) {
      struct Saved before, after;
      unsigned char* const place = memory + page * kPage;
      fill(&before, ++seed);
      memset(&after, 0, sizeof after);
      REQUIRE(*(volatile unsigned char*)&memory[0] == (page == 0 ? (unsigned char)round : 7));
      (avx ? across_store_avx : across_store)(&before, &after, place);
      REQUIRE(*place == 7);
      before.general[14] = (uint64_t)place; /* rdi */
      require_same(&before, &after, width);

      fill(&before, ++seed);
      before.general[0] = SYS_getppid;
      (avx ? across_call_avx : across_call)(&before, &after, place);
      REQUIRE((int64_t)after.general[0] > 0);
      before.general[0] = after.general[0];
      before.general[1] = after.general[1]; /* the instruction has lost rcx and r11 */
      before.general[9] = after.general[9];
      before.general[14] = (uint64_t)place;
      require_same(&before, &after, width);
    }
  }
  atomic_store(&over, true);
  REQUIRE(pthread_join(other, NULL) == 0 && pthread_join(sender, NULL) == 0);
  printf("registers: as they were\n");
  free(memory);
  return 0;
}
