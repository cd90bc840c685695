// What a page fault under Xen is made of: the event's way from Xen to this process and back, the
// right, the copy of a page and its way over the wire, each by itself. In Dom0, as root.
//
// It makes a guest (the test guest, workload `touch') by `xl create` and takes it down. On a
// machine that cannot, it says so in one line, which is no failure. One thread.
#pragma once

#include <string>

#include "base/result.h"

namespace xenspan::bench {

struct XenFaultOptions {
  std::string testguest;  // path of testguest.elf
  unsigned pages = 200;   // touched, once each
};
Status measure_xen_fault(const XenFaultOptions& options);

// "xenspan-bench: xen.fault: skipped: WHY"
void say_skipped(const std::string& why);

}  // namespace xenspan::bench
