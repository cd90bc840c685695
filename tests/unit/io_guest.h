// A guest's memory and system calls for the tests of io_calls.h: pack, execute and unpack in one
// process.
//
// Memory is a buffer at guest addresses kStart..; ranges of it can be made bad. The tests' own
// descriptors are the guest's.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "dom0-daemon/hypervisor/usermode/io_calls.h"

namespace xenspan::hypervisor::usermode {

class BufferMemory final : public GuestMemory {
 public:
  static constexpr std::uint64_t kStart = 0x4'0000'0000;
  explicit BufferMemory(std::size_t bytes) : bytes_(bytes) {}

  void make_bad(std::uint64_t from, std::uint64_t bytes) { bad_.emplace_back(from, from + bytes); }

  bool read(void* to, std::uint64_t address, std::size_t bytes) noexcept override {
    if (bytes == 0) return true;
    if (!good(address, bytes)) return false;
    std::memcpy(to, at(address), bytes);
    return true;
  }
  bool write(std::uint64_t address, const void* from, std::size_t bytes) noexcept override {
    if (bytes == 0) return true;
    if (!good(address, bytes)) return false;
    std::memcpy(at(address), from, bytes);
    return true;
  }
  bool read_string(std::string& to, std::uint64_t address, std::size_t limit) override {
    to.clear();
    for (char c; to.size() <= limit; to += c) {
      if (!read(&c, address + to.size(), 1)) return false;
      if (c == '\0') return true;
    }
    return false;
  }
  std::uint8_t* at(std::uint64_t address) { return bytes_.data() + (address - kStart); }
  std::uint64_t end() const { return kStart + bytes_.size(); }

 private:
  bool good(std::uint64_t address, std::size_t bytes) const {
    if (address < kStart || address > end() || bytes > end() - address) return false;
    return std::none_of(bad_.begin(), bad_.end(), [&](const auto& range) {
      return address < range.second && address + bytes > range.first;
    });
  }
  std::vector<std::uint8_t> bytes_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> bad_;
};

class IoTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kBadAddress = 0x10;

  IoTest() : memory(24 << 20) {
    std::string pattern = (std::filesystem::temp_directory_path() / "xenspan-io.XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) ADD_FAILURE() << "no temporary directory";
    directory = pattern;
  }
  ~IoTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  }

  template <typename T>
  static std::uint64_t word(T value) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>, "pass guest addresses, not pointers");
    return static_cast<std::uint64_t>(value);
  }

  // The guest's system call, as the runtime makes it.
  template <typename... Args>
  std::int64_t call(std::int64_t number, Args... args) {
    const Call call{number, {word(args)...}};
    Progress progress;
    for (rounds = 1;; ++rounds) {
      if (const int error = pack(call, progress, memory, request_); error != 0)
        return progress.done > 0 ? static_cast<std::int64_t>(progress.done) : error;
      execute(home, request_, answer_);
      if (unpack(call, answer_, memory, progress) == Next::kFinished) return progress.result;
    }
  }

  // Guest memory: take some, put a value there, look at it.
  std::uint64_t take(std::size_t bytes) {
    const std::uint64_t address = next_;
    next_ += (bytes + 15) & ~std::size_t{15};
    if (next_ > memory.end()) ADD_FAILURE() << "the test's guest memory is too small";
    return address;
  }
  template <typename T>
  std::uint64_t put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::uint64_t address = take(sizeof value);
    std::memcpy(memory.at(address), &value, sizeof value);
    return address;
  }
  std::uint64_t text(const std::string& value) {
    const std::uint64_t address = take(value.size() + 1);
    std::memcpy(memory.at(address), value.c_str(), value.size() + 1);
    return address;
  }
  template <typename T>
  T get(std::uint64_t address) {
    T value;
    std::memcpy(&value, memory.at(address), sizeof value);
    return value;
  }
  std::string get_text(std::uint64_t address, std::size_t bytes) {
    return std::string(reinterpret_cast<const char*>(memory.at(address)), bytes);
  }
  // Bytes that differ everywhere.
  void fill(std::uint64_t address, std::size_t bytes, std::uint32_t seed) {
    std::uint32_t state = seed * 2654435761U + 1;
    for (std::size_t i = 0; i < bytes; ++i) {
      state = state * 1664525U + 1013904223U;
      memory.at(address)[i] = static_cast<std::uint8_t>(state >> 24);
    }
  }
  std::string path(const std::string& name) const { return directory + "/" + name; }

  BufferMemory memory;
  HomeIo home{nullptr, 1024};
  std::string directory;
  int rounds = 0;  // of the last call

 private:
  std::uint64_t next_ = BufferMemory::kStart;
  Packet request_, answer_;
};

// For long contents: EXPECT_EQ would look for the shortest difference of megabytes, for minutes.
inline bool same_bytes(const std::string& one, const std::string& other) {
  if (one == other) return true;
  const auto at = std::mismatch(one.begin(), one.end(), other.begin(), other.end()).first;
  ADD_FAILURE() << one.size() << " and " << other.size() << " bytes differ at " << at - one.begin();
  return false;
}

// The result of a real system call in the form the kernel gives it.
inline std::int64_t direct(std::int64_t result) { return result < 0 ? -errno : result; }

}  // namespace xenspan::hypervisor::usermode
