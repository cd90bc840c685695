// HVM save records: what is taken out for one vCPU, and what is refused.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "dom0-daemon/hypervisor/xen/home_pages.h"
#include "dom0-daemon/hypervisor/xen/hvm_records.h"
#include "dom0-daemon/hypervisor/xen/reading_widths.h"
#include "dom0-daemon/hypervisor/xen/vcpu_context.h"

extern "C" {
#include <xen/hvm/save.h>
#include <xen/xen.h>
}

namespace xenspan::hypervisor::xen {
namespace {

TEST(HomePages, TravelAsText) {
  const auto pages = home_pages_from(to_text({{0xfeffe, "the console's ring"}, {7, "a page"}}));
  ASSERT_EQ(pages.size(), 2U);
  EXPECT_EQ(pages[0].gfn, 7U);
  ASSERT_NE(find_home_page(pages, 0xfeffe), nullptr);
  EXPECT_EQ(find_home_page(pages, 0xfeffe)->what, "the console's ring");
  for (const dsm::Gfn gfn : {6, 8, 0xfefff}) EXPECT_EQ(find_home_page(pages, gfn), nullptr) << gfn;
  EXPECT_TRUE(home_pages_from("").empty());
  EXPECT_EQ(home_pages_from("x y\n12\n\n 3\n5 five").size(), 1U);
}

using Bytes = std::vector<std::byte>;

void add(Bytes& to, std::uint16_t type, std::uint16_t vcpu, const void* payload,
         std::uint32_t bytes) {
  const hvm_save_descriptor descriptor{type, vcpu, bytes};
  const auto append = [&](const void* from, std::size_t size) {
    const auto* start = static_cast<const std::byte*>(from);
    to.insert(to.end(), start, start + size);
  };
  append(&descriptor, sizeof descriptor);
  append(payload, bytes);
}

template <typename Payload>
void add(Bytes& to, std::uint16_t type, std::uint16_t vcpu, const Payload& payload) {
  add(to, type, vcpu, &payload, sizeof payload);
}

Bytes header(std::uint32_t magic = HVM_FILE_MAGIC, std::uint32_t version = HVM_FILE_VERSION) {
  Bytes bytes;
  hvm_save_header payload{};
  payload.magic = magic;
  payload.version = version;
  add(bytes, HVM_SAVE_CODE(HEADER), 0, payload);
  return bytes;
}

void add_vcpu(Bytes& to, std::uint16_t vcpu, bool whole = true) {
  hvm_hw_cpu cpu{};
  cpu.rip = 0x1000 + vcpu;
  cpu.rsp = 0x2000 + vcpu;
  cpu.tsc = 5000;
  add(to, HVM_SAVE_CODE(CPU), vcpu, cpu);
  if (!whole) return;
  hvm_hw_lapic lapic{};
  lapic.tdt_msr = 100 + vcpu;
  add(to, HVM_SAVE_CODE(LAPIC), vcpu, lapic);
  add(to, HVM_SAVE_CODE(LAPIC_REGS), vcpu, hvm_hw_lapic_regs{});
}

void add_rest(Bytes& to, std::uint16_t vcpu) {
  add(to, HVM_SAVE_CODE(MTRR), vcpu, hvm_hw_mtrr{});
  Bytes xsave(800, std::byte{static_cast<unsigned char>(vcpu)});
  add(to, CPU_XSAVE_CODE, vcpu, xsave.data(), static_cast<std::uint32_t>(xsave.size()));
  add(to, HVM_SAVE_CODE(TSC_ADJUST), vcpu, hvm_tsc_adjust{});
}

void end(Bytes& to) { add(to, HVM_SAVE_CODE(END), 0, nullptr, 0); }

// Two vCPUs and devices, as Xen mixes them.
Bytes two_vcpus() {
  Bytes bytes = header();
  add_vcpu(bytes, 0);
  add_vcpu(bytes, 1);
  add(bytes, HVM_SAVE_CODE(PIT), 0, hvm_hw_pit{});
  add(bytes, 77, 3, "unknown", 7);  // of a Xen to come
  add_rest(bytes, 0);
  add_rest(bytes, 1);
  end(bytes);
  return bytes;
}

std::vector<std::pair<int, int>> kinds_of(const Bytes& bytes) {
  std::vector<std::pair<int, int>> kinds;
  for (std::size_t at = 0; at < bytes.size();) {
    hvm_save_descriptor record;
    std::memcpy(&record, bytes.data() + at, sizeof record);
    kinds.emplace_back(record.typecode, record.instance);
    at += sizeof record + record.length;
  }
  return kinds;
}

TEST(ReadingWidths, OneAloneIsNotBelieved) {
  ReadingWidths widths;
  EXPECT_FALSE(widths.agree());
  EXPECT_TRUE(widths.add(300'000));
  EXPECT_FALSE(widths.agree());
}

// Two that were interrupted, for different times, and an undisturbed one, are not enough either.
TEST(ReadingWidths, TwoThatWereNotInterruptedAgree) {
  ReadingWidths widths;
  EXPECT_TRUE(widths.add(2'500'000));
  EXPECT_FALSE(widths.add(3'900'000));
  EXPECT_FALSE(widths.agree());
  EXPECT_TRUE(widths.add(310'000));
  EXPECT_FALSE(widths.agree());
  EXPECT_TRUE(widths.add(300'000));
  EXPECT_TRUE(widths.agree());
  EXPECT_EQ(widths.shortest(), 300'000U);
  EXPECT_FALSE(widths.add(4'000'000));
  EXPECT_TRUE(widths.agree());
}

TEST(ReadingWidths, ShortOnesMayDifferByWhatCachesDo) {
  ReadingWidths widths;
  widths.add(9'000);
  widths.add(12'000);
  EXPECT_TRUE(widths.agree());
}

TEST(HvmRecords, OneVcpuIsTakenOutOfTwo) {
  const auto records = HvmRecords::parse(two_vcpus());
  ASSERT_TRUE(records.ok()) << records.error().message;
  EXPECT_EQ(records->vcpus(), 2u);
  const auto own = records->of_vcpu(1);
  ASSERT_TRUE(own.ok()) << own.error().message;
  const std::vector<std::pair<int, int>> expected = {{1, 0},  {2, 1},  {5, 1},  {6, 1},
                                                     {14, 1}, {16, 1}, {19, 1}, {0, 0}};
  EXPECT_EQ(kinds_of(*own), expected);
  const auto again = HvmRecords::parse(*own);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->registers(1)->rip, 0x1001u);
  EXPECT_EQ(again->registers(1)->rsp, 0x2001u);
  EXPECT_EQ(again->registers(0).error().code, ENOENT);
}

TEST(HvmRecords, VcpuThatIsDownIsNotThere) {
  Bytes bytes = header();
  add_vcpu(bytes, 0);
  add_rest(bytes, 0);
  add_vcpu(bytes, 1, false);  // without its local APIC
  end(bytes);
  const auto records = HvmRecords::parse(bytes);
  ASSERT_TRUE(records.ok());
  EXPECT_TRUE(records->of_vcpu(0).ok());
  EXPECT_EQ(records->of_vcpu(1).error().code, ENOENT);
  EXPECT_EQ(records->of_vcpu(2).error().code, ENOENT);
}

TEST(HvmRecords, TimeOnTheWayIsAddedToTheTsc) {
  auto own = HvmRecords::parse(two_vcpus())->of_vcpu(1);
  ASSERT_TRUE(advance_tsc(*own, 1234).ok());
  const auto moved = HvmRecords::parse(*own);
  EXPECT_EQ(moved->registers(1)->tsc, 6234u);
  EXPECT_EQ(moved->registers(1)->rip, 0x1001u);
  Bytes none = header();
  end(none);
  EXPECT_EQ(advance_tsc(none, 1).error().code, EPROTO);
}

// A clock that was late in the slice it leaves is right in the next, and so is one that was early.
TEST(HvmRecords, WhatAClockIsBehindIsMadeUpFor) {
  VcpuContext context;
  context.records = *HvmRecords::parse(two_vcpus())->of_vcpu(1);
  context.registers = *HvmRecords::parse(context.records)->registers(1);
  for (const auto& [behind, expected] : {std::pair{1000, 6000U}, {-1500, 4500U}, {0, 4500U}}) {
    ASSERT_TRUE(make_up_for(context, behind).ok());
    EXPECT_EQ(context.registers.tsc, expected);
    EXPECT_EQ(HvmRecords::parse(context.records)->registers(1)->tsc, expected);
  }
}

// Xen takes down whoever is not in what it loads: those that are up go along, before the one that
// comes, with their own TSC and without their local APIC.
TEST(HvmRecords, OthersThatAreUpGoAlong) {
  const auto records = HvmRecords::parse(two_vcpus());
  Bytes others = records->others_than(1), set = *records->of_vcpu(1);
  ASSERT_TRUE(advance_tsc(others, 7).ok());
  ASSERT_TRUE(add_others(set, others).ok());
  const std::vector<std::pair<int, int>> expected = {{1, 0}, {2, 0},  {16, 0}, {2, 1},  {5, 1},
                                                     {6, 1}, {14, 1}, {16, 1}, {19, 1}, {0, 0}};
  EXPECT_EQ(kinds_of(set), expected);
  const auto both = HvmRecords::parse(set);
  ASSERT_TRUE(both.ok()) << both.error().message;
  EXPECT_EQ(both->registers(0)->rip, 0x1000u);
  EXPECT_EQ(both->registers(0)->tsc, 5007u);
  EXPECT_EQ(both->registers(1)->tsc, 5000u);
  ASSERT_TRUE(advance_tsc(set, 1).ok()) << "of each";
  EXPECT_EQ(HvmRecords::parse(set)->registers(0)->tsc, 5008u);
  EXPECT_EQ(HvmRecords::parse(set)->registers(1)->tsc, 5001u);

  Bytes alone = header();
  add_vcpu(alone, 0);
  add_rest(alone, 0);
  end(alone);
  EXPECT_TRUE(HvmRecords::parse(alone)->others_than(0).empty());
  Bytes nothing;
  EXPECT_EQ(add_others(nothing, others).error().code, EPROTO);
}

TEST(HvmRecords, WhatIsNoSuchRunIsRefused) {
  const auto code_of = [](const Bytes& bytes) {
    const auto records = HvmRecords::parse(bytes);
    return records.ok() ? 0 : records.error().code;
  };
  EXPECT_EQ(code_of({}), EPROTO);
  EXPECT_EQ(code_of(Bytes(100)), EPROTO);  // it begins with an end
  Bytes magic = header(1);
  end(magic);
  EXPECT_EQ(code_of(magic), EPROTO);
  Bytes version = header(HVM_FILE_MAGIC, 2);
  end(version);
  EXPECT_EQ(code_of(version), EPROTO);
  Bytes endless = header();
  add_vcpu(endless, 0);
  EXPECT_EQ(code_of(endless), EPROTO);
  Bytes twins = header();
  add_vcpu(twins, 0);
  add_vcpu(twins, 0);
  end(twins);
  EXPECT_EQ(code_of(twins), EPROTO);
  Bytes lengthy = header();
  const hvm_save_descriptor longer{2, 0, 0xffffffff};
  const auto* raw = reinterpret_cast<const std::byte*>(&longer);
  lengthy.insert(lengthy.end(), raw, raw + sizeof longer);
  EXPECT_EQ(code_of(lengthy), EPROTO);
}

TEST(HvmRecords, RegistersOfAnotherXenAreRefused) {
  Bytes bytes = header();
  Bytes cpu(sizeof(hvm_hw_cpu) - 8);
  add(bytes, HVM_SAVE_CODE(CPU), 0, cpu.data(), static_cast<std::uint32_t>(cpu.size()));
  end(bytes);
  const auto records = HvmRecords::parse(bytes);
  ASSERT_FALSE(records.ok());
  EXPECT_NE(records.error().message.find("same version of Xen"), std::string::npos);
}

// Cut anywhere, or with any byte changed: refused or read, never out of bounds (run under ASan by
// the fuzz build).
TEST(HvmRecords, DamagedBytesNeverLeadOutside) {
  const Bytes whole = two_vcpus();
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(HvmRecords::parse(std::span(whole).first(size)).ok()) << size;
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    Bytes damaged = whole;
    damaged[random() % damaged.size()] ^= std::byte{static_cast<unsigned char>(1 + random() % 255)};
    const auto records = HvmRecords::parse(damaged);
    if (!records) continue;
    for (unsigned vcpu = 0; vcpu < 3; ++vcpu) {
      auto own = records->of_vcpu(vcpu);
      if (own.ok()) {
        EXPECT_TRUE(advance_tsc(*own, 1).ok());
      }
    }
  }
}

}  // namespace
}  // namespace xenspan::hypervisor::xen
