// Messages on a byte stream between hosts: a 4-byte big-endian length and that many bytes of JSON,
// at most 1 MiB.
//
// FrameReader takes bytes as they come and gives whole messages out; the bytes are untrusted. After
// an error the stream cannot be used any more. Threading: plain values, no I/O.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

inline constexpr std::size_t kMaxFrame = 1 << 20;

class FrameReader {
 public:
  void append(std::string_view bytes) { buffer_.append(bytes); }
  // The next whole message, nothing when more bytes are needed, or an error when the bytes are not
  // messages.
  Result<std::optional<Json>> next();

 private:
  std::string buffer_;
  std::size_t begin_ = 0;
};

// The bytes of one message, or an error when it is larger than a peer accepts.
Result<std::string> make_frame(const Json& message);

}  // namespace xenspan::daemon
