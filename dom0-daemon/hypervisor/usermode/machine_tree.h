// The directories of sysfs that describe processors and memory nodes, written out for a domain's
// vCPUs: /sys/devices/system/cpu and /sys/devices/system/node. One package, a core each vCPU, one
// node.
//
// Used by ProcFiles once, at start. What has no meaning for a vCPU (frequency, idle states,
// hotplug) is left out.
#pragma once

#include <cstdint>
#include <string>

namespace xenspan::hypervisor::usermode {

struct Machine {
  unsigned vcpus = 1;
  std::uint64_t memory = 0;  // bytes
};

// A set of the first `count` processors as the kernel prints it: "0-3", "f".
std::string cpu_list(unsigned count);
std::string cpu_map(unsigned count);
// The same for one processor of `count`: "00000000,00000004".
std::string cpu_map_of(unsigned cpu, unsigned count);

// Writes both trees under `directory` ("DIRECTORY/sys/devices/system/cpu/..."). What cannot be
// written is missing there.
void write_machine_tree(const Machine& machine, const std::string& directory);

}  // namespace xenspan::hypervisor::usermode
