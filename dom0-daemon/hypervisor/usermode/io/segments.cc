#include "dom0-daemon/hypervisor/usermode/io/segments.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

namespace xenspan::hypervisor::usermode::io {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kChunk = 32;  // entries read at once

// Copies in one go; only when that fails, page by page up to the bad one.
template <typename Copy>
std::size_t copy_up_to_bad(std::uint64_t address, std::size_t offset, std::size_t bytes,
                           const Copy& copy) {
  if (copy(address, offset, bytes)) return bytes;
  std::size_t done = 0;
  while (done < bytes) {
    const std::size_t in_page = kPage - ((address + done) & (kPage - 1));
    const std::size_t piece = std::min(in_page, bytes - done);
    if (!copy(address + done, offset + done, piece)) break;
    done += piece;
  }
  return done;
}

}  // namespace

int Segments::one(std::uint64_t address, std::uint64_t bytes, Segments& segments) {
  if (static_cast<std::int64_t>(bytes) < 0) return -EINVAL;
  segments = Segments();
  segments.address_ = address;
  segments.total_ = std::min(bytes, kMaxTransfer);
  return 0;
}

int Segments::vector(GuestMemory& memory, std::uint64_t array, std::uint64_t count,
                     Segments& segments) {
  if (count > kMaxIovecs) return -EINVAL;
  segments = Segments();
  segments.address_ = array;
  segments.count_ = count;
  segments.is_vector_ = true;
  iovec entries[kChunk];
  for (std::uint64_t i = 0; i < count; i += kChunk) {
    const std::uint64_t n = std::min(kChunk, count - i);
    if (!memory.read(entries, array + i * sizeof(iovec), n * sizeof(iovec))) return -EFAULT;
    for (std::uint64_t k = 0; k < n; ++k) {
      if (static_cast<std::int64_t>(entries[k].iov_len) < 0) return -EINVAL;
      segments.total_ = std::min(segments.total_ + entries[k].iov_len, kMaxTransfer);
    }
  }
  return 0;
}

template <typename Copy>
std::size_t Segments::walk(GuestMemory& memory, std::uint64_t from, std::size_t bytes,
                           const Copy& copy) const {
  if (!is_vector_) return copy_up_to_bad(address_ + from, 0, bytes, copy);
  std::size_t done = 0;
  iovec entries[kChunk];
  for (std::uint64_t i = 0; i < count_ && done < bytes; i += kChunk) {
    const std::uint64_t n = std::min(kChunk, count_ - i);
    if (!memory.read(entries, address_ + i * sizeof(iovec), n * sizeof(iovec))) return done;
    for (std::uint64_t k = 0; k < n && done < bytes; ++k) {
      const std::uint64_t length = entries[k].iov_len;
      if (from >= length) {
        from -= length;
        continue;
      }
      const std::size_t piece = std::min<std::uint64_t>(length - from, bytes - done);
      const std::uint64_t address = reinterpret_cast<std::uint64_t>(entries[k].iov_base) + from;
      const std::size_t copied = copy_up_to_bad(address, done, piece, copy);
      done += copied;
      if (copied < piece) return done;
      from = 0;
    }
  }
  return done;
}

std::size_t Segments::gather(GuestMemory& memory, std::uint64_t from, void* to,
                             std::size_t bytes) const {
  if (bytes == 0) return 0;
  auto* target = static_cast<std::uint8_t*>(to);
  return walk(memory, from, bytes, [&](std::uint64_t address, std::size_t offset, std::size_t n) {
    return memory.read(target + offset, address, n);
  });
}

std::size_t Segments::scatter(GuestMemory& memory, std::uint64_t from, const void* data,
                              std::size_t bytes) const {
  if (bytes == 0) return 0;
  const auto* source = static_cast<const std::uint8_t*>(data);
  return walk(memory, from, bytes, [&](std::uint64_t address, std::size_t offset, std::size_t n) {
    return memory.write(address, source + offset, n);
  });
}

}  // namespace xenspan::hypervisor::usermode::io
