// The home while its role moves: calls at it are interrupted so that they are made again at the
// next one, and what comes from outside meanwhile is kept.
#include <algorithm>
#include <chrono>
#include <thread>

#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/service_threads.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::chrono::milliseconds kInterruptAgain{3};

}  // namespace

void Home::hold() {
  unsigned before = hold_.load();
  if (before % 2 != 0 || !hold_.compare_exchange_strong(before, before + 1)) return;
  start_service_thread("xs-hold", Priority::kCalls,
                       [this, hold = before + 1] { interrupt_calls(hold); });
}

void Home::release() {
  unsigned before = hold_.load();
  if (before % 2 == 0 || !hold_.compare_exchange_strong(before, before + 1)) return;
  pump_.wake();
}

// An interruption can come too early, before the thread sleeps: so it is repeated.
void Home::interrupt_calls(unsigned hold) {
  while (hold_ == hold && !retired_ && !ending_) {
    std::vector<std::shared_ptr<HomeThread>> calling;
    {
      std::lock_guard guard(lock_);
      for (const auto& [tid, thread] : threads_)
        if (thread->in_call.load() != 0) calling.push_back(thread);
    }
    for (const auto& thread : calling) interrupt(*thread);
    std::this_thread::sleep_for(kInterruptAgain);
  }
}

unsigned Home::threads_on(dsm::HostId host) {
  std::lock_guard guard(lock_);
  return static_cast<unsigned>(
      std::count_if(threads_.begin(), threads_.end(),
                    [host](const auto& each) { return each.second->host == host; }));
}

unsigned Home::calls_under_way() {
  std::lock_guard guard(lock_);
  return static_cast<unsigned>(
      std::count_if(threads_.begin(), threads_.end(),
                    [](const auto& each) { return each.second->in_call.load() != 0; }));
}

void Home::begin_giving() {
  std::lock_guard guard(lock_);
  giving_ = true;
}

void Home::keep() {
  std::vector<int> kept;
  {
    std::lock_guard guard(lock_);
    giving_ = false;
    kept.swap(kept_signals_);
  }
  for (const int signo : kept) outside_signal(signo);
}

std::vector<int> Home::retire() {
  std::vector<int> kept;
  {
    std::lock_guard guard(lock_);
    retired_ = true;
    kept.swap(kept_signals_);
  }
  pump_.wake();
  return kept;
}

}  // namespace xenspan::hypervisor::usermode
