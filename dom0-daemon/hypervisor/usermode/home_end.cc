// How a domain ends: by its program, which waits until its mapped files are saved, or by a signal,
// which waits for nobody.
#include <unistd.h>

#include <chrono>
#include <thread>

#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/service_threads.h"

namespace xenspan::hypervisor::usermode {
namespace {

// What a signal leaves for saving mapped files. Their pages may be on a host that does not answer.
constexpr std::chrono::seconds kSaveLimit{1};

}  // namespace

void Home::park_for_ever() {
  for (;;) ::pause();
}

// Mappings of files are the only memory that outlives the program.
void Home::save_shared() {
  std::lock_guard guard(layout_lock_);
  const auto parts = space_.writable_shared({kWindowStart, kWindowEnd});
  saving_ = !parts.empty();
  for (const Mapping& part : parts) write_back(part, part.range);
  saving_ = false;
}

void Home::report(const Services::End& end) {
  if (!reported_.exchange(true)) services_.end(end);
}

void Home::finish(const Services::End& end) {
  if (ending_.exchange(true)) park_for_ever();
  save_shared();
  report(end);
  park_for_ever();
}

void Home::end_by_signal(const Services::End& end) {
  if (!ending_.exchange(true))
    start_service_thread("xs-save", Priority::kHouse, [this, end] {
      save_shared();
      report(end);
    });
  // Also when the program is about to end by itself and waits for a page.
  if (!forced_.exchange(true))
    start_service_thread("xs-end", Priority::kHouse, [this, end] {
      std::this_thread::sleep_for(kSaveLimit);
      Services::End last = end;
      if (saving_ && last.message.empty())
        last.message = "a host did not answer: changes to mapped files may be lost";
      report(last);
    });
}

}  // namespace xenspan::hypervisor::usermode
