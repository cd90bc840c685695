// How one system call's arguments are described: the vocabulary of the table in table.cc.
//
// A description is a constant; everything that packs, runs and unpacks a call reads it. Lengths in
// it are what Linux copies for that argument on x86-64.
#pragma once

#include <array>
#include <cstdint>

#include "dom0-daemon/hypervisor/usermode/io_calls.h"

namespace xenspan::hypervisor::usermode::io {

enum class Kind : std::uint8_t {
  kValue,       // travels as it is
  kDescriptor,  // a value that must be below the descriptor limit
  kDirectory,   // the same, or AT_FDCWD; of no interest when the path after it is absolute
  kText,        // NUL-terminated string
  kPath,        // the same; may name one of the domain's own files in /proc or /sys
  kNull,        // the home passes 0 (signal masks, pointers of calls that are refused)
  kBuffer,      // memory, see Arg
};

enum class Length : std::uint8_t {
  kFixed,    // `unit` bytes
  kCounted,  // args[other] * unit bytes
  kFdSet,    // select(2)'s: as many words as args[0] descriptors need
  kPointed,  // args[other] points at a 32-bit length, in and out (socket addresses and options)
};

struct Arg {
  Kind kind = Kind::kValue;
  Length length = Length::kFixed;
  std::uint8_t other = 0;
  bool in = false, out = false;
  bool by_result = false;  // the call's result says how many units of it are to be copied out
  bool int_count = false;  // args[other] is an int: negative is EINVAL
  bool always = false;     // copied out also after an error, and no error if the guest's memory
                           // refuses (poll's timeouts)
  std::uint16_t over =
      0;  // errno when it is longer than `limit`; 0: the length is cut to the limit
  std::uint32_t unit = 1;
  std::uint32_t limit = kMaxRound;  // bytes
};

inline constexpr Arg val{};
inline constexpr Arg fd{.kind = Kind::kDescriptor};
inline constexpr Arg dirfd{.kind = Kind::kDirectory};
inline constexpr Arg text{.kind = Kind::kText};
inline constexpr Arg path{.kind = Kind::kPath};
inline constexpr Arg null{.kind = Kind::kNull};

// Structures of fixed size.
constexpr Arg in_of(std::uint32_t bytes) {
  return {.kind = Kind::kBuffer, .in = true, .unit = bytes};
}
constexpr Arg out_of(std::uint32_t bytes) {
  return {.kind = Kind::kBuffer, .out = true, .unit = bytes};
}
constexpr Arg inout_of(std::uint32_t bytes) {
  return {.kind = Kind::kBuffer, .in = true, .out = true, .unit = bytes};
}
// A time that the kernel counts down in place.
constexpr Arg timeout_of(std::uint32_t bytes) {
  return {.kind = Kind::kBuffer, .in = true, .out = true, .always = true, .unit = bytes};
}
// A buffer whose length is argument `n`.
constexpr Arg in(std::uint8_t n, std::uint32_t limit = kMaxRound, std::uint16_t over = 0) {
  return {.kind = Kind::kBuffer,
          .length = Length::kCounted,
          .other = n,
          .in = true,
          .over = over,
          .limit = limit};
}
// The same where argument `n` is an int that must not be negative.
constexpr Arg in_int(std::uint8_t n, std::uint32_t limit, std::uint16_t over = 0) {
  Arg arg = in(n, limit, over);
  arg.int_count = true;
  return arg;
}
// A buffer of argument `n` units, filled as far as the result says.
constexpr Arg out(std::uint8_t n, std::uint32_t unit = 1) {
  return {.kind = Kind::kBuffer,
          .length = Length::kCounted,
          .other = n,
          .out = true,
          .by_result = true,
          .unit = unit};
}
constexpr Arg out_int(std::uint8_t n, std::uint32_t unit = 1) {
  Arg arg = out(n, unit);
  arg.int_count = true;
  return arg;
}
// An array of argument `n` units that the call changes in place.
constexpr Arg array(std::uint8_t n, std::uint32_t unit, std::uint16_t over) {
  return {.kind = Kind::kBuffer,
          .length = Length::kCounted,
          .other = n,
          .in = true,
          .out = true,
          .over = over,
          .unit = unit};
}
inline constexpr Arg fd_set{
    .kind = Kind::kBuffer, .length = Length::kFdSet, .in = true, .out = true};
// A buffer whose length argument `n` points at; the length itself.
constexpr Arg out_var(std::uint8_t n, std::uint32_t limit) {
  return {
      .kind = Kind::kBuffer, .length = Length::kPointed, .other = n, .out = true, .limit = limit};
}
inline constexpr Arg length_ptr = inout_of(4);

struct Invocation;
// Runs a call whose arguments are ready. The result is the call's, -errno included.
using Run = std::int64_t (*)(const HomeIo& home, Invocation& invocation);

enum class Shape : std::uint8_t {
  kGeneric,   // `args` says everything
  kTransfer,  // read(2), write(2) and their vectored forms
  kMessage,   // sendto(2), recvfrom(2), sendmsg(2), recvmsg(2), sendmmsg(2), recvmmsg(2)
  kRefused,   // `refusal` at once
};

struct CallInfo {
  int number = 0;  // of the call, or fcntl(2)'s or ioctl(2)'s command
  Arg args[6] = {};
  bool new_fd = false;  // the result is a new descriptor
  Run run = nullptr;    // nullptr: the system call itself
  Shape shape = Shape::kGeneric;
  int refusal = 0;
};

// The description of a call, for fcntl(2), ioctl(2) and epoll_ctl(2) that of its command; nullptr:
// not the home's.
const CallInfo* describe(std::int64_t number, const std::array<std::uint64_t, 6>& args);
const CallInfo& describe_fcntl(std::uint64_t command);
const CallInfo& describe_ioctl(std::uint64_t command);

// A generic call at the home, ready to run: what the kernel is to get, pointers into request and
// answer.
struct Invocation {
  const CallInfo& info;
  int number;
  std::array<std::uint64_t, 6> args{};
  struct Item {
    const std::uint8_t* sent = nullptr;  // the guest's bytes, read-only
    std::uint32_t bytes = 0;             // of `sent`
    std::uint32_t offset = 0, room = 0;  // of what is copied back, in the answer
  };
  std::array<Item, 6> items{};

  int int_arg(unsigned i) const { return static_cast<int>(args[i]); }
  template <typename T>
  T* pointer(unsigned i) const {
    return reinterpret_cast<T*>(args[i]);
  }
};

// The system call of the invocation as it stands.
std::int64_t run_plain(const HomeIo& home, Invocation& invocation);

// select(2)'s bytes for `count` descriptors.
constexpr std::uint64_t fd_set_bytes(std::int32_t count) {
  return count <= 0 ? 0 : (static_cast<std::uint64_t>(count) + 63) / 64 * 8;
}
inline constexpr std::int32_t kMaxFdSet =
    65536;  // descriptors; select(2) ignores those past the process's table

}  // namespace xenspan::hypervisor::usermode::io
