#include "dom0-daemon/hypervisor/usermode/futex_leases.h"

#include <algorithm>
#include <mutex>

namespace xenspan::hypervisor::usermode {

std::uint64_t FutexLeases::on_idle_wake(std::uint64_t address, dsm::HostId host) {
  Place& place = places_[futex_lease_place(address)];
  if (place.address != address) {
    if (place.holders != 0) return 0;  // another address has the place
    place = {};
    place.address = address;
  }
  if (++place.idle < place.wanted) return 0;
  place.idle = place.wanted;
  place.holders |= dsm::mask_of(host);
  return ++version_;
}

FutexLeases::TakeBack FutexLeases::on_wait(std::uint64_t address) {
  Place& place = places_[futex_lease_place(address)];
  if (place.address != address) return {};
  place.idle = 0;
  if (place.holders == 0) return {};
  const TakeBack result{place.holders, ++version_};
  place.holders = 0;
  place.wanted = std::min(place.wanted * 2, kMost);
  return result;
}

FutexLeases::State FutexLeases::state() const {
  State state{version_, {}};
  for (const Place& place : places_)
    if (place.holders != 0) state.holders.emplace_back(place.address, place.holders);
  return state;
}

void FutexLeases::take(const State& state) {
  version_ = state.version;
  for (const auto& [address, holders] : state.holders) {
    Place& place = places_[futex_lease_place(address)];
    place.address = address;
    place.holders = holders;
    place.idle = place.wanted;
  }
}

bool IdleFutexes::idle(std::uint64_t address) {
  Place& place = places_[futex_lease_place(address)];
  const std::lock_guard guard(place.lock);
  return place.idle && place.address == address;
}

void IdleFutexes::lease(std::uint64_t address, std::uint64_t version) {
  Place& place = places_[futex_lease_place(address)];
  const std::lock_guard guard(place.lock);
  if (version <= place.taken_back) return;
  place.address = address;
  place.idle = true;
}

void IdleFutexes::take_back(std::uint64_t address, std::uint64_t version) {
  Place& place = places_[futex_lease_place(address)];
  const std::lock_guard guard(place.lock);
  place.taken_back = std::max(place.taken_back, version);
  if (place.address == address) place.idle = false;
}

void IdleFutexes::take_back_all(std::uint64_t version) {
  for (Place& place : places_) {
    const std::lock_guard guard(place.lock);
    place.taken_back = std::max(place.taken_back, version);
    place.idle = false;
  }
}

}  // namespace xenspan::hypervisor::usermode
