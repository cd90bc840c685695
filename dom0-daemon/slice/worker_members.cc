// The worker's part when hosts join and leave (member_steps.h) or die (survival_steps.h), for a
// user-mode domain.
#include <cerrno>
#include <chrono>

#include "dom0-daemon/slice/worker.h"

namespace xenspan::slice {
namespace {

// How long a look at who is still there may take before the daemon hears of it.
constexpr std::chrono::milliseconds kVacateLook{500};

}  // namespace

Status Worker::add_peer(dsm::HostId host, const dsm::tcp::Peer& peer) {
  return slice_->add_peer(host, peer);
}

Status Worker::admit_peer(dsm::HostId host) { return slice_->admit_peer(host); }

Status Worker::remove_peer(dsm::HostId host) { return slice_->remove_peer(host); }

void Worker::learn_slots(const dsm::SlotTable& table) { slice_->learn_slots(table); }

Result<unsigned> Worker::vacate(dsm::HostId host) {
  if (slice_->home() == nullptr) return Error{EPROTO, "`vacate` is for the home"};
  const auto left = slice_->home()->vacate(host, kVacateLook);
  if (!left) return left.error();
  return static_cast<unsigned>(*left);
}

dsm::Engine& Worker::engine() { return slice_->engine(); }

Status Worker::freeze(dsm::HostMask lost) { return slice_->freeze(lost); }

Status Worker::forget(const dsm::SlotTable& table, dsm::Epoch epoch) {
  return slice_->forget(table, epoch);
}

}  // namespace xenspan::slice
