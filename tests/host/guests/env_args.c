/* What a program is told at start: arguments, environment, terminals, working directory, user,
 * names of itself. */
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "require.h"

extern char** environ;

int main(int argc, char** argv) {
  char path[4096];
  printf("arguments %d\n", argc);
  for (int i = 0; i < argc; ++i) printf("argument [%s]\n", argv[i]);
  REQUIRE(argv[argc] == NULL);
  for (char** variable = environ; *variable != NULL; ++variable) {
    /* The shell's own differ from run to run. */
    if (strncmp(*variable, "PWD=", 4) == 0 || strncmp(*variable, "OLDPWD=", 7) == 0 ||
        strncmp(*variable, "_=", 2) == 0) {
      continue;
    }
    printf("variable [%s]\n", *variable);
  }
  for (int fd = 0; fd < 3; ++fd) printf("descriptor %d: terminal %d\n", fd, isatty(fd));
  /* Not printed: runs that are compared have folders of their own. */
  struct stat here, named;
  REQUIRE(getcwd(path, sizeof path) != NULL);
  REQUIRE(stat(".", &here) == 0 && stat(path, &named) == 0);
  REQUIRE(here.st_dev == named.st_dev && here.st_ino == named.st_ino);
  printf("user %u %u group %u %u\n", getuid(), geteuid(), getgid(), getegid());
  REQUIRE(getauxval(AT_UID) == getuid() && getauxval(AT_EGID) == getegid());
  REQUIRE(getauxval(AT_PAGESZ) == 4096 && sysconf(_SC_PAGESIZE) == 4096);
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  REQUIRE(length > 0);
  path[length] = '\0';
  printf("executable %s\n", path);

  /* The kernel's idea of the arguments agrees. */
  FILE* file = fopen("/proc/self/cmdline", "r");
  REQUIRE(file != NULL);
  for (int i = 0; i < argc; ++i) {
    for (const char* c = argv[i];; ++c) {
      REQUIRE(fgetc(file) == (unsigned char)*c);
      if (*c == '\0') break;
    }
  }
  REQUIRE(fgetc(file) == EOF);
  fclose(file);
  printf("ok env_args\n");
  return 0;
}
