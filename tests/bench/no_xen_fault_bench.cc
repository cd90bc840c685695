// In a build without Xen's libraries.
#include "tests/bench/xen_fault_bench.h"

namespace xenspan::bench {

Status measure_xen_fault(const XenFaultOptions&) {
  say_skipped("this build has no Xen libraries: install libxen-dev, and configure again");
  return {};
}

}  // namespace xenspan::bench
