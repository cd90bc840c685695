// Guests' memory in blocks: lets the kernel give a slice that asks for it (madvise) 32 KiB at once.
//
// Eight pages then cost little more than one did, where a program touches fresh memory and where
// pages come in a stream. The kernel has that from 6.11 on, switched off; what is changed here is
// the setting shmem_enabled of that one size, from never to advise, which concerns nobody who does
// not ask. Linux: Documentation/admin-guide/mm/transhuge.rst, "Shmem / Internal tmpfs". Threading:
// the loop's thread.
#pragma once

#include <string>

namespace xenspan::daemon {

class FrameBlocks {
 public:
  FrameBlocks() = default;
  // Lets the kernel, if it can and does not already. `folder`: another one for tests.
  void allow(const std::string& folder = "/sys/kernel/mm/transparent_hugepage");
  // As it was found.
  ~FrameBlocks();
  FrameBlocks(const FrameBlocks&) = delete;
  FrameBlocks& operator=(const FrameBlocks&) = delete;

 private:
  std::string changed_;  // the setting's file, if this object has changed it
};

}  // namespace xenspan::daemon
