// xenspan-slice: one slice of one user-mode domain. Started by xenspand; see control.md and
// xenspan-slice(8).
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "base/log.h"
#include "config.h"
#include "dom0-daemon/slice/descriptors.h"
#include "dom0-daemon/slice/worker.h"

namespace {

constexpr char kUsage[] =
    "Usage: xenspan-slice --control-fd N\n"
    "The worker of one slice of a spanning domain. xenspand starts it; users have no reason to.\n"
    "  --control-fd N  socket to xenspand\n"
    "  --help          this text\n"
    "  --version       version of xenspan\n";

int usage_error(const std::string& text) {
  std::cerr << "xenspan-slice: " << text
            << "; xenspand starts this program, see xenspan-slice(8)\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace xenspan;
  if (argc == 2 && std::strcmp(argv[1], "--help") == 0) return std::cout << kUsage, 0;
  if (argc == 2 && std::strcmp(argv[1], "--version") == 0)
    return std::cout << "xenspan-slice " PACKAGE_VERSION "\n", 0;
  if (argc != 3 || std::strcmp(argv[1], "--control-fd") != 0)
    return usage_error("--control-fd N is missing");
  char* end = nullptr;
  const long number = std::strtol(argv[2], &end, 10);
  if (*end != '\0' || end == argv[2] || number < 3 || number > 1 << 20)
    return usage_error(std::string("`") + argv[2] + "` is not a descriptor number");
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Terminals and shells signal the user's command, which forwards through xenspand: not this
  // process.
  for (const int signo : {SIGINT, SIGQUIT, SIGHUP, SIGTSTP}) std::signal(signo, SIG_IGN);
  log::open("xenspan-slice", "");
  UniqueFd control(static_cast<int>(number));
  if (const Status status = slice::occupy_guest_descriptors(control); !status.ok()) {
    log::error("{}", status.error().message);
    return 1;
  }
  slice::Worker worker(std::move(control));
  return worker.run();
}
