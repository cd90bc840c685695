// The words of the Xen backend that its files share: domain, access right, facts about host and
// domain. Includes nothing of Xen, so that what is pure can be tested without it.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::xen {

// Xen's number of a domain on one host.
using DomainId = std::uint32_t;

// What mem_access lets a guest do with a page. There is no write without read in EPT, and a page
// that may be read may be executed: code faults would come on top otherwise.
enum class Access : std::uint8_t { kNone, kReadExecute, kAll };

constexpr Access access_of(dsm::Right right) {
  switch (right) {
    case dsm::Right::kInvalid: return Access::kNone;
    case dsm::Right::kShared: return Access::kReadExecute;
    case dsm::Right::kExclusive: return Access::kAll;
  }
  return Access::kNone;
}

// A host as Xen sees it.
struct HostFacts {
  unsigned version_major = 0, version_minor = 0;  // of the running Xen
  bool hvm = false, hap = false;                  // HVM guests; hardware-assisted paging
  bool vmx = false, svm = false;                  // Intel VT-x; AMD-V
  unsigned cpus = 0;
  std::uint64_t free_pages = 0;
  int vm_event_version = 0;  // of the running Xen's vm_event interface
};

// One domain.
struct DomainFacts {
  DomainId id = 0;
  std::array<std::uint8_t, 16> uuid{};
  bool hvm = false, hap = false, paused = false, dying = false, shut_down = false;
  unsigned shutdown_reason = 0;  // Xen's number, once it is shut down
  unsigned vcpus = 0;
  std::uint64_t pages = 0, max_pages = 0;  // allocated now; may be allocated
};

// A page inside the guest's memory that belongs to the home, and whose it is: "Xen's shared_info".
struct HomePage {
  dsm::Gfn gfn = 0;
  std::string what;
};

// Populate-on-demand, as Xen counts it.
struct OnDemandFacts {
  std::uint64_t pages = 0;    // allocated to the domain, those kept ready among them
  std::uint64_t ready = 0;    // kept ready for entries that are touched
  std::uint64_t entries = 0;  // gfns marked and not yet touched
};

}  // namespace xenspan::hypervisor::xen
