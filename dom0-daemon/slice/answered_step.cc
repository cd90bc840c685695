#include "dom0-daemon/slice/answered_step.h"

#include <string>
#include <utility>

#include "dom0-daemon/hypervisor/usermode/service_threads.h"

namespace xenspan::slice {

using nlohmann::json;

void take_answered_step(const char* thread, ControlChannel& control, const json& body,
                        std::function<Status(json& answer)> step) {
  using hypervisor::usermode::Priority;
  hypervisor::usermode::start_service_thread(
      thread, Priority::kCalls, [&control, id = body.value("id", json()), step = std::move(step)] {
        json answer{{"event", "done"}, {"id", id}};
        try {
          if (Status done = step(answer); !done) answer["error"] = done.error().message;
        } catch (const json::exception& error) {
          answer["error"] = std::string("xenspand's order is wrong: ") + error.what();
        }
        control.send(answer);
      });
}

}  // namespace xenspan::slice
