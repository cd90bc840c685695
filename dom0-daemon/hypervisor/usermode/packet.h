// Reading and writing the fields of a packet between two slices of a domain: fixed-size values,
// then bytes.
//
// The peer is authenticated, its bytes are not trusted: a Reader never reads past the end and says
// so in ok(). Both ends are x86-64, so values travel as they lie in memory (little endian).
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace xenspan::hypervisor::usermode {

using Packet = std::vector<std::uint8_t>;

class Writer {
 public:
  explicit Writer(Packet& packet) : packet_(packet) { packet_.clear(); }
  template <typename T>
  Writer& put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return bytes(&value, sizeof value);
  }
  Writer& bytes(const void* from, std::size_t size) {
    const std::size_t before = packet_.size();
    packet_.resize(before + size);
    if (size > 0) std::memcpy(packet_.data() + before, from, size);
    return *this;
  }

 private:
  Packet& packet_;
};

class Reader {
 public:
  explicit Reader(const Packet& packet) : next_(packet.data()), left_(packet.size()) {}
  template <typename T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (left_ < sizeof value) {
      ok_ = false;
      left_ = 0;
      return value;
    }
    std::memcpy(&value, next_, sizeof value);
    next_ += sizeof value;
    left_ -= sizeof value;
    return value;
  }
  std::string text(std::size_t bytes) {
    if (left_ < bytes) ok_ = false;
    if (!ok_) return {};
    std::string all(reinterpret_cast<const char*>(next_), bytes);
    next_ += bytes;
    left_ -= bytes;
    return all;
  }
  // The next bytes, in the packet itself; nullptr when there are fewer.
  const std::uint8_t* skip(std::size_t bytes) {
    if (left_ < bytes) ok_ = false;
    if (!ok_) return nullptr;
    const std::uint8_t* at = next_;
    next_ += bytes;
    left_ -= bytes;
    return at;
  }
  bool empty() const { return left_ == 0; }
  std::string rest() { return std::string(reinterpret_cast<const char*>(next_), left_); }
  bool ok() const { return ok_; }

 private:
  const std::uint8_t* next_;
  std::size_t left_;
  bool ok_ = true;
};

}  // namespace xenspan::hypervisor::usermode
