// Where each vCPU of the domain is now: host and core. Every slice has a copy, which follows the
// home's (Op::kPlace).
//
// Threading: any thread, except assign(), which comes before there are others. The number of vCPUs
// never changes.
#pragma once

#include <mutex>
#include <vector>

#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::usermode {

struct VcpuPlace {
  dsm::HostId host = 0;
  int core = 0;
  bool operator==(const VcpuPlace&) const = default;
};

class VcpuPlaces {
 public:
  VcpuPlaces() = default;
  explicit VcpuPlaces(std::vector<VcpuPlace> places) : places_(std::move(places)) {}
  void assign(std::vector<VcpuPlace> places) { places_ = std::move(places); }

  unsigned size() const { return static_cast<unsigned>(places_.size()); }
  VcpuPlace at(unsigned vcpu) const {
    std::lock_guard guard(lock_);
    return places_[vcpu];
  }
  void set(unsigned vcpu, VcpuPlace place) {
    std::lock_guard guard(lock_);
    places_[vcpu] = place;
  }

 private:
  mutable std::mutex lock_;
  std::vector<VcpuPlace> places_;  // the elements GUARDED_BY(lock_)
};

}  // namespace xenspan::hypervisor::usermode
