#include "dom0-daemon/cli/check_command.h"

#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/log.h"
#include "dom0-daemon/daemon/xen_declaration.h"

namespace xenspan::cli {

int check_declaration(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    log::error("{}", system_error(errno, "cannot read " + path, "see xenspan-domain(5)").message);
    return 2;
  }
  const auto checked = daemon::check_xen_declaration(text.str());
  for (const std::string& fault : checked.faults) fmt::print("{}\n", fault);
  return checked.faults.empty() ? 0 : 1;
}

}  // namespace xenspan::cli
