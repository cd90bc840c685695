/* execve by a program with one thread: the same process goes on as another program. What has to go
   goes (memory, handlers, alternate stack, descriptors with close-on-exec), what has to stay stays
   (id, ignored and blocked signals, other descriptors, directory), and threads work in both. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "require.h"

enum { kKept = 40, kClosed = 41, kBytes = 1 << 20, kThreads = 4 };

static volatile int changed = 7;
static long parts[kThreads][512]; /* a page each */

static void* add(void* number) {
  const long mine = (long)number;
  for (int i = 0; i < 100000; ++i) parts[mine][0] += i;
  return NULL;
}

/* Pages go to the other hosts and come back. */
static void use_threads(void) {
  pthread_t threads[kThreads];
  long sum = 0;
  for (long i = 0; i < kThreads; ++i)
    REQUIRE(pthread_create(&threads[i], NULL, add, (void*)i) == 0);
  for (int i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  for (int i = 0; i < kThreads; ++i) sum += parts[i][0];
  REQUIRE(sum == kThreads * 4999950000L);
}

static void handler(int number) { (void)number; }

static void first(const char* program, char* spare) {
  char pid[32], address[32];
  REQUIRE(changed == 7);
  changed = 8;
  use_threads();
  char* const memory =
      mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  memset(memory, 1, kBytes);

  signal(SIGUSR1, handler);
  signal(SIGUSR2, SIG_IGN);
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  REQUIRE(sigaltstack(&stack, NULL) == 0);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  REQUIRE(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  const int file = open("made", O_RDWR | O_CREAT | O_EXCL, 0600);
  REQUIRE(file >= 0 && write(file, "before ", 7) == 7);
  REQUIRE(dup2(file, kKept) == kKept && dup2(file, kClosed) == kClosed);
  REQUIRE(fcntl(kClosed, F_SETFD, FD_CLOEXEC) == 0);

  /* What cannot be executed leaves everything as it is. */
  char* volatile nowhere = (char*)8;
  char* nothing[] = {"nothing", NULL};
  REQUIRE(execve("/no/such/program", nothing, nothing) == -1 && errno == ENOENT);
  REQUIRE(execve("/", nothing, nothing) == -1 && errno == EACCES);
  REQUIRE(execve("made", nothing, nothing) == -1 && errno == EACCES);
  REQUIRE(execve(nowhere, nothing, nothing) == -1 && errno == EFAULT);
  REQUIRE(changed == 8 && memory[kBytes - 1] == 1 && fcntl(kClosed, F_GETFD) == FD_CLOEXEC);

  snprintf(pid, sizeof pid, "%d", (int)getpid());
  snprintf(address, sizeof address, "%p", (void*)memory);
  char* arguments[] = {"renamed", "again", pid, address, spare, "", NULL};
  char* environment[] = {"ONLY=this one", NULL};
  execve(program, arguments, environment);
  REQUIRE(!"execve returned");
}

static void second(int count, char** arguments) {
  extern char** environ;
  char link[4096];
  REQUIRE(changed == 7);
  REQUIRE(count == 6 && strcmp(arguments[0], "renamed") == 0 && arguments[5][0] == '\0');
  REQUIRE(environ[0] != NULL && strcmp(environ[0], "ONLY=this one") == 0 && environ[1] == NULL);
  REQUIRE(atoi(arguments[2]) == (int)getpid());

  struct sigaction action;
  REQUIRE(sigaction(SIGUSR1, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
  REQUIRE(sigaction(SIGUSR2, NULL, &action) == 0 && action.sa_handler == SIG_IGN);
  stack_t stack;
  REQUIRE(sigaltstack(NULL, &stack) == 0 && (stack.ss_flags & SS_DISABLE) != 0);
  sigset_t set;
  REQUIRE(sigprocmask(SIG_BLOCK, NULL, &set) == 0);
  REQUIRE(sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGINT) == 0);

  REQUIRE(fcntl(kClosed, F_GETFD) == -1 && errno == EBADF);
  REQUIRE(write(kKept, "after\n", 6) == 6);
  /* The old memory is not there, and what is mapped at its place is empty. */
  char* const wanted = (char*)strtoul(arguments[3], NULL, 16);
  char* const memory = mmap(wanted, kBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (memory != MAP_FAILED) { /* natively the program lies elsewhere, and may be just there */
    for (int i = 0; i < kBytes; ++i) REQUIRE(memory[i] == 0);
  }
  const ssize_t length = readlink("/proc/self/exe", link, sizeof link - 1);
  REQUIRE(length > 0);
  link[length] = '\0';
  REQUIRE(strstr(link, "exec_replaces") != NULL);
  use_threads();
  /* Registers of the old program do not show in this one's floating point. */
  volatile double one = 1.0;
  REQUIRE(one / 3.0 * 3.0 == 1.0);
  /* A script, whose interpreter reads it. */
  FILE* const script = fopen("script", "w");
  REQUIRE(script != NULL);
  fputs("#!/bin/sh -e\necho script \"$0\" \"$#\" \"$1\"\nexec /bin/echo ok \"$1\"\n", script);
  REQUIRE(fchmod(fileno(script), 0700) == 0 && fclose(script) == 0);
  execl("script", "ignored", "exec_replaces", NULL);
  REQUIRE(!"execl returned");
}

int main(int count, char** arguments) {
  char program[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  REQUIRE(length > 0);
  program[length] = '\0';
  if (count == 6)
    second(count, arguments);
  else
    first(program, "spare");
  return 1;
}
