#include "dom0-daemon/daemon/frame_blocks.h"

#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/log.h"
#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/frame_block.h"

namespace xenspan::daemon {
namespace {

Status set(const std::string& file, const char* word) {
  std::ofstream out(file);
  if (!(out << word << '\n') || !out.flush())
    return system_error(errno, "cannot write " + std::string(word) + " to " + file);
  return {};
}

}  // namespace

void FrameBlocks::allow(const std::string& folder) {
  const std::string file = fmt::format("{}/hugepages-{}kB/shmem_enabled", folder,
                                       hypervisor::usermode::kBlockBytes / 1024);
  std::stringstream choice;
  choice << std::ifstream(file).rdbuf();
  // Every word that is possible; the one in brackets is valid.
  if (choice.str().find("[never]") == std::string::npos) return;
  if (Status status = set(file, "advise"); !status) {
    log::debug("guests' memory comes page by page: {}", status.error().message);
    return;
  }
  changed_ = file;
}

FrameBlocks::~FrameBlocks() {
  if (changed_.empty()) return;
  if (Status status = set(changed_, "never"); !status) log::warning("{}", status.error().message);
}

}  // namespace xenspan::daemon
