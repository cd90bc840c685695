// dom0-daemon/hypervisor/usermode/home_state.h: the state of a home that comes from another slice.
// What is accepted is the same when it is sent on, and its layout can be worked with.
//
// Input: the packet.
#include "dom0-daemon/hypervisor/usermode/home_state.h"
#include "dom0-daemon/hypervisor/usermode/window.h"
#include "tests/fuzz/demand.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan::hypervisor::usermode;
  constexpr unsigned kVcpus = 4;
  constexpr int kLimit = 1024;
  constexpr std::uint64_t kMemory = 1 << 30;
  const Packet packet(data, data + size);
  const auto state = parse_home_state(packet, kVcpus, kLimit, kMemory);
  if (!state) return 0;
  DEMAND(pack(*state) == packet);
  AddressSpace space(kMemory);
  DEMAND(space.take(state->layout));
  DEMAND(space.count() <= state->layout.mappings.size());
  DEMAND(space.munmap(kWindowStart, kWindowEnd - kWindowStart).result == 0);
  DEMAND(space.count() == 0);
  for (const auto& thread : state->threads) DEMAND(thread.vcpu < kVcpus);
  for (const OpenFile& file : state->files) DEMAND(file.number >= 0 && file.number < kLimit);
  return 0;
}
