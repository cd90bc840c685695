// For a build without Xen's libraries.
#include "dom0-daemon/slice/xen_worker.h"

namespace xenspan::slice {

int work_for_xen(ControlChannel& control, const nlohmann::json&) {
  control.send({{"event", "failed"},
                {"status", 125},
                {"error",
                 "this xenspan was built without Xen: install libxen-dev, configure and build it "
                 "again"}});
  while (control.receive().ok()) {  // until the daemon closes or kills
  }
  return 1;
}

}  // namespace xenspan::slice
