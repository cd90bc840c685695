// A page fault of a guest thread, or of the runtime touching guest memory for it: layout first,
// then the right.
#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::hypervisor::usermode {

bool GuestThread::on_page_fault(std::uint64_t address, bool write, bool mapped, std::uint64_t pc) {
  const dsm::Gfn gfn = gfn_of(address);
  while (!LayoutTable::allows(slice_.layout().at(gfn), write)) {
    Writer(fault_request_).put(address);
    ask(Op::kLayout, fault_request_, fault_answer_);
    Reader in(fault_answer_);
    const auto version = in.get<std::uint64_t>();
    const auto start = in.get<std::uint64_t>();
    const auto end = in.get<std::uint64_t>();
    const auto prot = in.get<std::int32_t>();
    if (!in.ok() || prot < 0) return false;
    if (!slice_.learn(version, address, {start, end}, prot)) continue;  // out of date already
    if (!LayoutTable::allows(static_cast<std::uint8_t>(LayoutTable::kKnown | prot), write))
      return false;
  }
  if (write && mapped) GuestView::expect_mapped(gfn);
  if (slice_.engine().acquire(gfn, write ? dsm::Right::kExclusive : dsm::Right::kShared, {pc}) !=
      dsm::Outcome::kGranted)
    park();
  return true;
}

}  // namespace xenspan::hypervisor::usermode
