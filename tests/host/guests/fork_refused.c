/* In a spanning domain there is one process: fork and posix_spawn give ENOSYS, and so does exec
   while there are other threads; the program goes on. Natively (the kernel hands out a vDSO, a
   spanning domain does not) they must work, so that the two runs print the same. */
#include <pthread.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#include "require.h"

extern char** environ;

static void succeeded(pid_t child) {
  int status;
  REQUIRE(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void* wait_for_ever(void* nothing) {
  for (;;) pause();
  return nothing;
}

int main(void) {
  char* arguments[] = {"true", NULL};
  const int spanning = getauxval(AT_SYSINFO_EHDR) == 0;
  pthread_t other;
  pid_t child = fork();
  if (child == 0) _exit(0);
  if (spanning) {
    REQUIRE(child == -1 && errno == ENOSYS);
    REQUIRE(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == ENOSYS);
    REQUIRE(pthread_create(&other, NULL, wait_for_ever, NULL) == 0);
    REQUIRE(execve("/bin/true", arguments, environ) == -1 && errno == ENOSYS);
    REQUIRE(popen("true", "r") == NULL);  // which error is glibc's choice
  } else {
    succeeded(child);
    REQUIRE(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0);
    succeeded(child);
  }
  printf("ok fork_refused\n");
  return 0;
}
