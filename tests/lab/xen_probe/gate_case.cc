// The test guest's gate, opened from Dom0: it waits there until what was wanted of it is prepared.
#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "frontend-drivers/testguest/layout.h"
#include "tests/lab/xen_probe/cases.h"

namespace xenspan::lab {

int open_gate(XenCalls& xen, DomainId domain, std::uint64_t word) {
  void* place = ::mmap(nullptr, dsm::kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) return fail("no address for the gate");
  if (const int error =
          xen.map(domain, GATE_ADDRESS >> dsm::kPageShift, static_cast<std::byte*>(place));
      error != 0)
    return fail(fmt::format("domain {}'s gate cannot be mapped: {}", domain, std::strerror(error)));
  *static_cast<volatile std::uint64_t*>(place) = word;
  return 0;
}

}  // namespace xenspan::lab
