// What two slices tell each other about their queue pairs before the first message, as bytes.
//
//   0 u32 magic "XSPV"   4 u8 version   5 u8 lanes   6 u8 mtu (ibv_mtu)   7 u8 link layer
//   8 u16 lid           10 u16 zero    12 u32 rkey  16 u8[16] gid        32 .. one entry a queue
//                                                                           pair
//   entry: 0 u32 queue pair  4 u32 first packet number  8 u32 receive buffers  12 u32 bounce frames
//         16 u64 address of the bounce frames          24 u64 address of the credit counter
//
// Entries: own lanes 0 .. lanes, then the ends of the peer's lanes 0 .. lanes. Little-endian. What
// is read comes from a peer and is checked. Pure functions, any thread. Internal to
// transport/verbs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dsm-rdma/transport/verbs/device.h"

namespace xenspan::dsm::verbs {

struct QueueRecord {
  std::uint32_t number = 0;
  std::uint32_t first_packet = 0;  // 24 bits
  std::uint32_t buffers = 0;       // receive buffers that are posted
  std::uint32_t bounce_frames = 0;
  std::uint64_t bounce_address = 0;
  std::uint64_t credit_address = 0;  // where the peer writes how many messages it has taken

  friend bool operator==(const QueueRecord&, const QueueRecord&) = default;
};

struct SetupRecord {
  std::uint8_t mtu = 0, link_layer = 0;
  std::uint16_t lid = 0;
  std::uint32_t rkey = 0;
  GidBytes gid{};
  std::vector<QueueRecord> own, theirs;  // by lane

  friend bool operator==(const SetupRecord&, const SetupRecord&) = default;
};

inline constexpr std::size_t kRecordHeaderBytes = 32, kQueueRecordBytes = 32;
constexpr std::size_t record_bytes(unsigned lanes) {
  return kRecordHeaderBytes + 2 * (lanes + 1) * kQueueRecordBytes;
}

// Both of record_bytes(lanes) bytes.
void encode(const SetupRecord& record, std::byte* to);
// nullptr, or what is wrong (a phrase that lives as long as the program).
const char* decode(const std::byte* from, unsigned lanes, SetupRecord& record);

}  // namespace xenspan::dsm::verbs
