#include "dsm-rdma/transport/verbs/setup_record.h"

#include <endian.h>

#include <cstring>

namespace xenspan::dsm::verbs {
namespace {

constexpr std::uint32_t kMagic = 0x56505358;  // "XSPV"
constexpr std::uint8_t kVersion = 1;
constexpr std::uint32_t kMostBuffers = 1 << 16, kPacketNumbers = 1 << 24;

struct Header {
  std::uint32_t magic;
  std::uint8_t version, lanes, mtu, link_layer;
  std::uint16_t lid, zero;
  std::uint32_t rkey;
  std::uint8_t gid[16];
};
static_assert(sizeof(Header) == kRecordHeaderBytes);

struct Entry {
  std::uint32_t number, first_packet, buffers, bounce_frames;
  std::uint64_t bounce_address, credit_address;
};
static_assert(sizeof(Entry) == kQueueRecordBytes);

void put(const QueueRecord& queue, std::byte* to) {
  const Entry out{htole32(queue.number),         htole32(queue.first_packet),
                  htole32(queue.buffers),        htole32(queue.bounce_frames),
                  htole64(queue.bounce_address), htole64(queue.credit_address)};
  std::memcpy(to, &out, sizeof out);
}

const char* take(const std::byte* from, QueueRecord& queue) {
  Entry in;
  std::memcpy(&in, from, sizeof in);
  queue = {le32toh(in.number),        le32toh(in.first_packet),   le32toh(in.buffers),
           le32toh(in.bounce_frames), le64toh(in.bounce_address), le64toh(in.credit_address)};
  if (queue.number >= 1u << 24 || queue.first_packet >= kPacketNumbers)
    return "a queue pair's number or first packet number has more than 24 bits";
  if (queue.buffers == 0 || queue.buffers > kMostBuffers || queue.bounce_frames > kMostBuffers)
    return "a number of receive buffers that cannot be";
  if (queue.credit_address % sizeof(std::uint32_t) != 0)
    return "a credit counter that is not aligned";
  return nullptr;
}

}  // namespace

void encode(const SetupRecord& record, std::byte* to) {
  Header out{};
  out.magic = htole32(kMagic);
  out.version = kVersion;
  out.lanes = static_cast<std::uint8_t>(record.own.size() - 1);
  out.mtu = record.mtu;
  out.link_layer = record.link_layer;
  out.lid = htole16(record.lid);
  out.rkey = htole32(record.rkey);
  std::memcpy(out.gid, record.gid.data(), record.gid.size());
  std::memcpy(to, &out, sizeof out);
  to += sizeof out;
  for (const auto* side : {&record.own, &record.theirs}) {
    for (const QueueRecord& queue : *side) {
      put(queue, to);
      to += kQueueRecordBytes;
    }
  }
}

const char* decode(const std::byte* from, unsigned lanes, SetupRecord& record) {
  Header in;
  std::memcpy(&in, from, sizeof in);
  if (le32toh(in.magic) != kMagic) return "not a set-up record (wrong magic)";
  if (in.version != kVersion) return "another version of the set-up";
  if (in.lanes != lanes) return "another number of lanes";
  if (in.mtu < IBV_MTU_256 || in.mtu > IBV_MTU_4096) return "an unknown packet size";
  if (in.zero != 0) return "reserved bytes are not zero";
  record.mtu = in.mtu;
  record.link_layer = in.link_layer;
  record.lid = le16toh(in.lid);
  record.rkey = le32toh(in.rkey);
  std::memcpy(record.gid.data(), in.gid, record.gid.size());
  from += sizeof in;
  for (auto* side : {&record.own, &record.theirs}) {
    side->resize(lanes + 1);
    for (QueueRecord& queue : *side) {
      if (const char* wrong = take(from, queue)) return wrong;
      from += kQueueRecordBytes;
    }
  }
  return nullptr;
}

}  // namespace xenspan::dsm::verbs
