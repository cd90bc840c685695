#include "dom0-daemon/daemon/framing.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdint>

namespace xenspan::daemon {
namespace {

constexpr std::size_t kLengthBytes = 4;

}  // namespace

Result<std::optional<Json>> FrameReader::next() {
  if (buffer_.size() - begin_ < kLengthBytes) return std::optional<Json>{};
  std::size_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    length = length << 8 | static_cast<unsigned char>(buffer_[begin_ + i]);
  if (length > kMaxFrame)
    return Error{EMSGSIZE, fmt::format("message of {} bytes, the limit is {}", length, kMaxFrame)};
  if (buffer_.size() - begin_ - kLengthBytes < length) return std::optional<Json>{};
  auto message = parse_object(std::string_view(buffer_).substr(begin_ + kLengthBytes, length));
  if (!message) return message.error();
  begin_ += kLengthBytes + length;
  if (begin_ == buffer_.size() || begin_ > kMaxFrame) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  return std::optional<Json>(std::move(*message));
}

Result<std::string> make_frame(const Json& message) {
  const std::string text = to_line(message);
  if (text.size() > kMaxFrame)
    return Error{EMSGSIZE,
                 fmt::format("message of {} bytes, the limit is {}", text.size(), kMaxFrame)};
  std::string frame;
  for (int shift = 24; shift >= 0; shift -= 8)
    frame += static_cast<char>(text.size() >> shift & 0xff);
  return frame + text;
}

}  // namespace xenspan::daemon
