// The bytes of one fuzz input, taken from its front. What is not there reads as zero, so every
// input has a meaning. Plain value; the input outlives it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <vector>

namespace xenspan::fuzz {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : next_(data), left_(size) {}

  template <typename T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const std::size_t bytes = std::min(sizeof value, left_);
    if (bytes > 0) std::memcpy(&value, next_, bytes);
    next_ += bytes;
    left_ -= bytes;
    return value;
  }
  std::string_view take_text(std::size_t most) {
    const std::size_t bytes = std::min(most, left_);
    const std::string_view text(reinterpret_cast<const char*>(next_), bytes);
    next_ += bytes;
    left_ -= bytes;
    return text;
  }
  std::vector<std::uint8_t> take_bytes(std::size_t most) {
    const std::string_view text = take_text(most);
    return {text.begin(), text.end()};
  }
  std::string_view rest() { return take_text(left_); }
  std::size_t left() const { return left_; }

 private:
  const std::uint8_t* next_;
  std::size_t left_;
};

}  // namespace xenspan::fuzz
