#include "dom0-daemon/hypervisor/xen/hvm_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

// The layout of the records is the hypervisor's, not a library's.
extern "C" {
#include <xen/hvm/save.h>
#include <xen/xen.h>
}

namespace xenspan::hypervisor::xen {
namespace {

struct Part {
  std::uint16_t type;
  std::size_t bytes;  // 0: as long as the processor's state is
  bool needed;
};

// What a vCPU consists of, in the order in which Xen loads it: CPU_XSAVE_CODE replaces the FPU
// state of the CPU record and has to come after it.
constexpr std::array kParts = {
    Part{HVM_SAVE_CODE(CPU), HVM_SAVE_LENGTH(CPU), true},
    Part{HVM_SAVE_CODE(LAPIC), HVM_SAVE_LENGTH(LAPIC), true},
    Part{HVM_SAVE_CODE(LAPIC_REGS), HVM_SAVE_LENGTH(LAPIC_REGS), true},
    Part{HVM_SAVE_CODE(MTRR), HVM_SAVE_LENGTH(MTRR), true},
    Part{CPU_XSAVE_CODE, 0, false},
    Part{HVM_SAVE_CODE(TSC_ADJUST), HVM_SAVE_LENGTH(TSC_ADJUST), false},
    Part{CPU_MSR_CODE, 0, false},
};

Error malformed(const char* what) {
  return {EPROTO, fmt::format("the vCPU context is malformed: {}", what)};
}

hvm_save_descriptor descriptor_at(std::span<const std::byte> bytes, std::size_t at) {
  hvm_save_descriptor found;
  std::memcpy(&found, bytes.data() + at, sizeof found);
  return found;
}

Status check_length(const hvm_save_descriptor& record) {
  for (const Part& part : kParts) {
    if (part.type != record.typecode || part.bytes == 0 || part.bytes == record.length) continue;
    return Error{EPROTO, fmt::format("a vCPU's record of type {} has {} bytes and not {}: both "
                                     "hosts and xenspan need the same version of Xen",
                                     part.type, record.length, part.bytes)};
  }
  return {};
}

Status check_header(std::span<const std::byte> payload) {
  hvm_save_header header;
  if (payload.size() != sizeof header) return malformed("its header has another size");
  std::memcpy(&header, payload.data(), sizeof header);
  if (header.magic != HVM_FILE_MAGIC) return malformed("it does not begin as one");
  if (header.version != HVM_FILE_VERSION)
    return Error{EPROTO, fmt::format("the vCPU context has version {} and not {}: both hosts need "
                                     "the same version of Xen",
                                     header.version, HVM_FILE_VERSION)};
  return {};
}

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

Result<HvmRecords> HvmRecords::parse(std::span<const std::byte> bytes) {
  HvmRecords found;
  found.bytes_.assign(bytes.begin(), bytes.end());
  for (std::size_t at = 0;;) {
    if (bytes.size() - at < sizeof(hvm_save_descriptor)) return malformed("it has no end");
    const hvm_save_descriptor record = descriptor_at(bytes, at);
    const std::size_t start = at;
    at += sizeof record;
    if (record.length > bytes.size() - at) return malformed("a record is longer than the rest");
    if (start == 0) {
      if (record.typecode != HVM_SAVE_CODE(HEADER)) return malformed("it has no header");
      if (Status good = check_header(bytes.subspan(at, record.length)); !good) return good.error();
    }
    if (Status good = check_length(record); !good) return good.error();
    at += record.length;
    found.records_.push_back({record.typecode, record.instance, start, at});
    if (record.typecode == HVM_SAVE_CODE(END)) break;
  }
  if (found.has_twins()) return malformed("a record is there twice");
  return found;
}

bool HvmRecords::has_twins() const {
  std::vector<std::uint32_t> keys;
  for (const Record& record : records_)
    keys.push_back(std::uint32_t{record.type} << 16 | record.vcpu);
  std::sort(keys.begin(), keys.end());
  return std::adjacent_find(keys.begin(), keys.end()) != keys.end();
}

const HvmRecords::Record* HvmRecords::find(std::uint16_t type, unsigned vcpu) const {
  const auto at = std::find_if(records_.begin(), records_.end(), [&](const Record& record) {
    return record.type == type && record.vcpu == vcpu;
  });
  return at == records_.end() ? nullptr : &*at;
}

unsigned HvmRecords::vcpus() const {
  return static_cast<unsigned>(
      std::count_if(records_.begin(), records_.end(),
                    [](const Record& record) { return record.type == HVM_SAVE_CODE(CPU); }));
}

Result<std::vector<std::byte>> HvmRecords::of_vcpu(unsigned vcpu) const {
  const auto whole = std::span(bytes_);
  std::vector<std::byte> out;
  append(out, whole.subspan(0, records_.front().end));
  for (const Part& part : kParts) {
    const Record* record = find(part.type, vcpu);
    if (record != nullptr) {
      append(out, whole.subspan(record->start, record->end - record->start));
    } else if (part.needed) {
      return Error{ENOENT, fmt::format("vCPU {} has no state of type {}: the domain has no such "
                                       "vCPU, or the guest has not started it yet",
                                       vcpu, part.type)};
    }
  }
  const hvm_save_descriptor end{};
  append(out, std::as_bytes(std::span(&end, 1)));
  return out;
}

// No LAPIC: its timer would start anew.
std::vector<std::byte> HvmRecords::others_than(unsigned vcpu) const {
  const auto whole = std::span(bytes_);
  std::vector<std::byte> out;
  for (const Record& record : records_) {
    if (record.type != HVM_SAVE_CODE(CPU) || record.vcpu == vcpu) continue;
    append(out, whole.subspan(record.start, record.end - record.start));
    if (const Record* state = find(CPU_XSAVE_CODE, record.vcpu))
      append(out, whole.subspan(state->start, state->end - state->start));
  }
  return out;
}

Result<VcpuRegisters> HvmRecords::registers(unsigned vcpu) const {
  const Record* record = find(HVM_SAVE_CODE(CPU), vcpu);
  if (record == nullptr)
    return Error{ENOENT, fmt::format("vCPU {} has no registers: it is not there, or down", vcpu)};
  hvm_hw_cpu cpu;
  std::memcpy(&cpu, bytes_.data() + record->start + sizeof(hvm_save_descriptor), sizeof cpu);
  return VcpuRegisters{cpu.rip, cpu.rsp, cpu.cr3, cpu.tsc};
}

Status advance_tsc(std::span<std::byte> records, std::uint64_t ticks) {
  bool any = false;
  for (std::size_t at = 0; records.size() - at >= sizeof(hvm_save_descriptor);) {
    const hvm_save_descriptor record = descriptor_at(records, at);
    at += sizeof record;
    if (record.length > records.size() - at) return malformed("a record is longer than the rest");
    if (record.typecode == HVM_SAVE_CODE(CPU)) {
      if (Status good = check_length(record); !good) return good;
      std::byte* tsc = records.data() + at + offsetof(hvm_hw_cpu, tsc);
      std::uint64_t value;
      std::memcpy(&value, tsc, sizeof value);
      value += ticks;
      std::memcpy(tsc, &value, sizeof value);
      any = true;
    }
    at += record.length;
  }
  return any ? Status() : malformed("it has no registers");
}

Status add_others(std::vector<std::byte>& set, std::span<const std::byte> others) {
  if (set.size() < sizeof(hvm_save_descriptor)) return malformed("it has no header");
  const std::size_t header = sizeof(hvm_save_descriptor) + descriptor_at(set, 0).length;
  if (header > set.size()) return malformed("a record is longer than the rest");
  set.insert(set.begin() + static_cast<std::ptrdiff_t>(header), others.begin(), others.end());
  return {};
}

}  // namespace xenspan::hypervisor::xen
