// The packed form of a call and of its answer, as they travel between a thread's host and the home.
//
//   request:  RequestHeader, then what the call's shape says (see shapes.h)
//   answer:   AnswerHeader, then the same
//
// Both ends are x86-64: values travel as they lie in memory. Every item starts at a multiple of 8
// bytes; the gaps are zero, so that nothing of this process leaks. Neither side trusts a length it
// reads here.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/io_calls.h"

namespace xenspan::hypervisor::usermode::io {

inline constexpr std::uint32_t kMagic = 0x31'4f'49'58;  // "XIO1": changes with the format

enum RequestFlag : std::uint16_t {
  kMore = 1,  // the guest wants more than this round carries
};

struct RequestHeader {
  std::uint32_t magic = kMagic;
  std::uint16_t number = 0;
  std::uint16_t flags = 0;
  std::array<std::uint64_t, 6> args{};
};

enum AnswerFlag : std::uint32_t {
  kMayContinue = 1,  // the round was full and another one is right for this kind of file
};

struct AnswerHeader {
  std::int64_t result = 0;
  std::uint32_t flags = 0;
  std::uint32_t reserved = 0;
};

// Precedes each item of a generic call: which argument it belongs to, and its length without
// padding.
struct Record {
  std::uint32_t arg = 0;
  std::uint32_t bytes = 0;
};

// What an answer or request may hold beside kMaxRound bytes of payload: headers, names, control
// data, structures.
inline constexpr std::size_t kMaxExtra = 48 << 10;

constexpr std::size_t padded(std::size_t bytes) { return (bytes + 7) & ~std::size_t{7}; }

// Makes the packet `bytes` long without caring for its contents. It does not shrink to nothing
// first: a thread that moves blocks of one size again and again then never pays for filling them
// with zeros.
inline void size_roughly(Packet& packet, std::size_t bytes) {
  if (packet.capacity() < bytes) packet.clear();  // old contents are not worth copying
  packet.resize(bytes);
}

// Appends `bytes` zero bytes, up to the next multiple of 8, and says where they start. Earlier
// pointers are void.
inline std::uint8_t* append(Packet& packet, std::size_t bytes) {
  const std::size_t at = packet.size();
  packet.resize(at + padded(bytes));
  return packet.data() + at;
}

inline void start_request(Packet& request, const RequestHeader& header) {
  request.clear();
  std::memcpy(append(request, sizeof header), &header, sizeof header);
}

inline void answer_only(Packet& answer, std::int64_t result) {
  const AnswerHeader header{result, 0, 0};
  size_roughly(answer, sizeof header);
  std::memcpy(answer.data(), &header, sizeof header);
}

// A cursor over a packet's bytes that never passes their end.
class Items {
 public:
  Items(const Packet& packet, std::size_t from)
      : next_(packet.data() + std::min(from, packet.size())),
        left_(packet.size() - std::min(from, packet.size())) {}
  bool empty() const { return left_ == 0; }
  // The next item of `bytes` bytes; nullptr when the packet is shorter.
  const std::uint8_t* take(std::size_t bytes) {
    if (bytes > left_ || padded(bytes) > left_) return nullptr;
    const std::uint8_t* item = next_;
    next_ += padded(bytes);
    left_ -= padded(bytes);
    return item;
  }
  template <typename T>
  bool take_value(T& value) {
    const std::uint8_t* item = take(sizeof value);
    if (item != nullptr) std::memcpy(&value, item, sizeof value);
    return item != nullptr;
  }

 private:
  const std::uint8_t* next_;
  std::size_t left_;
};

}  // namespace xenspan::hypervisor::usermode::io
