#include "dom0-daemon/slice/vcpu_routes.h"

#include <algorithm>
#include <utility>

namespace xenspan::slice {

VcpuRoutes::VcpuRoutes(dsm::HostId self, std::vector<dsm::HostId> places, Deliver deliver,
                       PassOn pass_on)
    : self_(self), deliver_(std::move(deliver)), pass_on_(std::move(pass_on)) {
  for (const dsm::HostId host : places) places_.push_back({host, false, {}});
}

void VcpuRoutes::interrupt(unsigned vcpu, std::uint8_t vector) {
  if (vcpu >= places_.size()) return;
  const std::lock_guard guard(lock_);
  Place& place = places_[vcpu];
  if (place.host != self_)
    pass_on_(place.host, vcpu, vector);
  else if (place.coming)
    place.kept.push_back(vector);
  else
    deliver_(vcpu, vector);
}

void VcpuRoutes::expect(unsigned vcpu) {
  if (vcpu >= places_.size()) return;
  const std::lock_guard guard(lock_);
  places_[vcpu].host = self_;
  places_[vcpu].coming = true;
}

void VcpuRoutes::come(unsigned vcpu) {
  if (vcpu >= places_.size()) return;
  const std::lock_guard guard(lock_);
  Place& place = places_[vcpu];
  place.host = self_;
  place.coming = false;
  for (const std::uint8_t vector : std::exchange(place.kept, {})) deliver_(vcpu, vector);
}

void VcpuRoutes::go(unsigned vcpu, dsm::HostId to) {
  if (vcpu >= places_.size() || to == self_) return;
  const std::lock_guard guard(lock_);
  Place& place = places_[vcpu];
  place.host = to;
  place.coming = false;
  for (const std::uint8_t vector : std::exchange(place.kept, {})) pass_on_(to, vcpu, vector);
}

dsm::HostId VcpuRoutes::place(unsigned vcpu) const {
  const std::lock_guard guard(lock_);
  return places_[vcpu].host;
}

unsigned VcpuRoutes::count_on(dsm::HostId host) const {
  const std::lock_guard guard(lock_);
  return static_cast<unsigned>(std::count_if(
      places_.begin(), places_.end(), [&](const Place& place) { return place.host == host; }));
}

void VcpuRoutes::between_interrupts(const std::function<void()>& act) const {
  const std::lock_guard guard(lock_);
  act();
}

}  // namespace xenspan::slice
