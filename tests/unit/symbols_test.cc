#include "dom0-daemon/hypervisor/usermode/symbols.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include "dom0-daemon/hypervisor/usermode/window.h"
#include "tests/unit/layout_programs/run_loaded.h"

namespace xenspan::hypervisor::usermode {
namespace {

using testing::HasSubstr;

constexpr int kRw = PROT_READ | PROT_WRITE;
constexpr int kFixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

class BuiltSymbolsTest : public testing::TestWithParam<const char*> {};

// The program says where its things are; the symbols must say what is there.
TEST_P(BuiltSymbolsTest, NamesWhatTheProgramFindsThere) {
  const std::string path = built_program(GetParam());
  if (path.empty()) GTEST_SKIP() << "this build has no " << GetParam();
  Image image;
  Program program;
  program.path = path;
  program.arguments = {path};
  const Result<Entry> entry = load(program, image.space, image.writer());
  ASSERT_TRUE(entry.ok()) << entry.error().message;
  std::map<std::string, std::uint64_t> addresses;
  std::istringstream output(run(image, *entry).output);
  for (std::string line; std::getline(output, line);) {
    std::istringstream words(line);
    std::string name, value;
    words >> name >> value;
    if (value.starts_with("0x")) addresses[name] = std::stoull(value, nullptr, 16);
  }
  ASSERT_EQ(addresses.size(), 4u);

  Symbols symbols;
  const std::string in = fmt::format(" ({})", GetParam());
  const auto what = [&](const char* name, std::uint64_t offset) {
    return symbols.describe(image.space, addresses[name] + offset);
  };
  EXPECT_EQ(what("function", 0), "fixture_function" + in);
  EXPECT_EQ(what("function", 2), "fixture_function+0x2" + in);
  EXPECT_EQ(what("method", 1), "fixture::Wheel::turn(int)+0x1" + in);
  EXPECT_EQ(what("data", 4), "fixture::filled+0x4" + in);
  EXPECT_EQ(what("bss", 0), "fixture::table+0x3e80" + in);
}

INSTANTIATE_TEST_SUITE_P(Kinds, BuiltSymbolsTest,
                         testing::Values("report_dynamic_pie", "report_dynamic_nopie",
                                         "report_static_pie", "report_static_nopie"));

TEST(Symbols, LibraryWithExportedSymbolsOnly) {
  // This process's own C library, laid out in the window as it lies here.
  AddressSpace space(std::uint64_t{1} << 32);
  std::ifstream maps("/proc/self/maps");
  std::uint64_t delta = 0;
  for (std::string line; std::getline(maps, line);) {
    unsigned long start = 0, end = 0, offset = 0;
    char rights[5] = {}, path[256] = {};
    std::sscanf(line.c_str(), "%lx-%lx %4s %lx %*s %*s %255s", &start, &end, rights, &offset, path);
    if (!std::string(path).ends_with("/libc.so.6")) continue;
    if (delta == 0) delta = start - kMmapBase;
    ASSERT_GT(space.mmap(start - delta, end - start, PROT_READ, kFixed, -1, offset, path).result,
              0);
  }
  if (delta == 0) GTEST_SKIP() << "linked without a shared C library";
  Symbols symbols;
  const std::uint64_t address = reinterpret_cast<std::uint64_t>(&std::qsort) - delta;
  EXPECT_EQ(symbols.describe(space, address), "qsort (libc.so.6)");
  EXPECT_EQ(symbols.describe(space, address + 1), "qsort+0x1 (libc.so.6)");
  EXPECT_EQ(symbols.describe(space, kMmapBase + 8), "libc.so.6+0x8");
}

TEST(Symbols, MappingsWithoutSymbols) {
  AddressSpace space(std::uint64_t{1} << 32);
  space.set_brk_start(0x1000000);
  space.brk(0x1010000);
  space.mmap(kMmapBase, 1 << 20, kRw, kFixed, -1, 0, "");
  space.mmap(kMmapBase + (1 << 20), 1 << 20, PROT_READ, MAP_PRIVATE | MAP_FIXED, 3, 0x5000,
             "/no/such/data");
  Symbols symbols;
  EXPECT_EQ(symbols.describe(space, 0x1002340), "[heap]+0x2340");
  EXPECT_EQ(symbols.describe(space, kMmapBase + 0x40), "[anon 0x8000000000]+0x40");
  EXPECT_EQ(symbols.describe(space, kMmapBase + (1 << 20) + 0x10), "data+0x5010");
  EXPECT_EQ(symbols.describe(space, 0x10), "unmapped");
  EXPECT_EQ(symbols.describe(space, ~std::uint64_t{0}), "unmapped");
}

TEST(Symbols, FreedMemoryKeepsTheNameOfItsLastMapping) {
  AddressSpace space(std::uint64_t{1} << 32);
  space.set_brk_start(0x1000000);
  space.brk(0x1010000);
  space.brk(0x1001000);
  space.mmap(kMmapBase, 1 << 20, kRw, kFixed, -1, 0, "");
  space.munmap(kMmapBase, 1 << 20);
  space.mmap(kMmapBase, 1 << 16, PROT_READ, MAP_PRIVATE | MAP_FIXED, 3, 0x5000, "/no/such/data");
  space.munmap(kMmapBase, 1 << 16);
  Symbols symbols;
  EXPECT_EQ(symbols.describe(space, 0x1000040), "[heap]+0x40");
  EXPECT_EQ(symbols.describe(space, 0x1002340), "[heap]+0x2340 (freed)");
  EXPECT_EQ(symbols.describe(space, kMmapBase + 0x10), "data+0x5010 (freed)") << "the latest";
  EXPECT_EQ(symbols.describe(space, kMmapBase + (1 << 16)), "[anon 0x8000000000]+0x10000 (freed)");
  EXPECT_EQ(symbols.describe(space, kMmapBase + (1 << 20)), "unmapped") << "never was";
  space.mmap(kMmapBase, 1 << 16, kRw, kFixed, -1, 0, "");
  EXPECT_EQ(symbols.describe(space, kMmapBase + 0x10), "[anon 0x8000000000]+0x10");
}

// However much a program maps and frees, what is kept of it is bounded.
TEST(Symbols, OldFreedMemoryIsForgotten) {
  AddressSpace space(std::uint64_t{1} << 32);
  space.mmap(kMmapBase, 4096, kRw, kFixed, -1, 0, "");
  space.munmap(kMmapBase, 4096);
  const std::uint64_t other = kMmapBase + (1 << 20);
  for (int i = 0; i < 100000 && space.find_freed(kMmapBase) != nullptr; ++i) {
    space.mmap(other, 4096, kRw, kFixed, -1, 0, "");
    space.munmap(other, 4096);
  }
  EXPECT_EQ(space.find_freed(kMmapBase), nullptr);
  EXPECT_NE(space.find_freed(other), nullptr);
}

// Tables that lie must not make it read outside the file.
TEST(Symbols, SurvivesBrokenFiles) {
  std::ifstream stream("/bin/true", std::ios::binary);
  const std::string original((std::istreambuf_iterator<char>(stream)), {});
  std::uint64_t sections = 0;
  std::memcpy(&sections, &original[40], sizeof sections);  // e_shoff
  std::mt19937_64 random(3);
  char path[] = "/tmp/xenspan-symbols-XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  for (int i = 0; i < 500; ++i) {
    std::string bytes = original;
    for (int change = 0; change < 4; ++change) {
      const std::size_t at = random() % 2 == 0
                                 ? 40 + random() % 24
                                 : sections + random() % (bytes.size() - sections - 8);
      const std::uint64_t value = random() >> (random() % 64);
      std::memcpy(&bytes[at], &value, 1 << random() % 4);
    }
    ASSERT_EQ(pwrite(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    AddressSpace space(std::uint64_t{1} << 32);
    space.mmap(kMmapBase, 0x20000, PROT_READ, kFixed, -1, 0, path);
    Symbols symbols;
    for (std::uint64_t at = 0; at < 0x20000; at += 0x333) {
      ASSERT_FALSE(symbols.describe(space, kMmapBase + at).empty());
    }
  }
  close(fd);
  unlink(path);
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
