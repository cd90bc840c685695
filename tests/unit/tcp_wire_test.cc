// The 64-byte message: round trip, and refusal of everything the format does not define.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>

#include "dsm-rdma/wire.h"

namespace xenspan::dsm::wire {
namespace {

using Bytes = std::array<std::byte, kMessageBytes>;
constexpr Bounds kBounds{4, 8, 1 << 20, 7};

ivy::Message sample() {
  ivy::Message message;
  message.kind = ivy::Kind::kGrant;
  message.payload = ivy::Payload::kPage;
  message.right = Right::kShared;
  message.from = 1;
  message.to = 2;
  message.requester = 2;
  message.acks = 3;
  message.lane = 8;
  message.txn = 0xdeadbeef;
  message.gfn = (1 << 20) - 1;
  return message;
}

Bytes encoded(const ivy::Message& message, Epoch epoch = 7) {
  Bytes bytes;
  encode(message, epoch, bytes.data());
  return bytes;
}

const char* refused(const Bytes& bytes) {
  ivy::Message message;
  return decode(bytes.data(), kBounds, message);
}

TEST(Wire, RoundTrip) {
  for (unsigned kind = 1; kind <= 7; ++kind) {
    ivy::Message message = sample();
    message.kind = static_cast<ivy::Kind>(kind);
    if (message.kind != ivy::Kind::kGrant) message.payload = ivy::Payload::kNone;
    message.discard = kind % 2 == 0;
    ivy::Message back;
    ASSERT_EQ(decode(encoded(message).data(), kBounds, back), nullptr) << kind;
    EXPECT_EQ(back, message);
    EXPECT_STRNE(name_of(message.kind), "?");
  }
}

TEST(Wire, LayoutIsLittleEndianAndFixed) {
  const Bytes bytes = encoded(sample());
  EXPECT_EQ(std::memcmp(bytes.data(), "XSPM", 4), 0);
  EXPECT_EQ(bytes[20], std::byte{0xef});  // txn
  EXPECT_EQ(bytes[23], std::byte{0xde});
  EXPECT_EQ(bytes[24], std::byte{0xff});  // gfn
  EXPECT_EQ(bytes[26], std::byte{0x0f});
}

TEST(Wire, RefusesEachBound) {
  const auto with = [](auto change) {
    ivy::Message message = sample();
    change(message);
    return refused(encoded(message));
  };
  EXPECT_NE(with([](auto& m) { m.from = 4; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.to = 4; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.requester = 255; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.acks = 4; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.lane = 9; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.gfn = 1 << 20; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.kind = static_cast<ivy::Kind>(8); }), nullptr);
  EXPECT_NE(with([](auto& m) { m.kind = static_cast<ivy::Kind>(0); }), nullptr);
  EXPECT_NE(with([](auto& m) { m.right = Right::kInvalid; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.kind = ivy::Kind::kInvalidateAck; }), nullptr)
      << "an acknowledgement carries no page";
  EXPECT_NE(with([](auto& m) { m.reads = 4; }), nullptr);
  EXPECT_NE(with([](auto& m) { m.version = 1 << 12; }), nullptr);
  EXPECT_NE(refused(encoded(sample(), 8)), nullptr) << "another epoch";
}

TEST(Wire, RefusesEveryReservedBit) {
  const Bytes good = encoded(sample());
  for (std::size_t at : {std::size_t{36}, std::size_t{40}, std::size_t{48}, std::size_t{63}}) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes bad = good;
      bad[at] ^= std::byte(1 << bit);
      EXPECT_NE(refused(bad), nullptr) << at << " " << bit;
    }
  }
  for (std::size_t at = 0; at < 5; ++at) {  // magic and version
    Bytes bad = good;
    bad[at] ^= std::byte{1};
    EXPECT_NE(refused(bad), nullptr) << at;
  }
  for (int bit = 1; bit < 8; ++bit) {  // flags
    Bytes bad = good;
    bad[8] ^= std::byte(1 << bit);
    EXPECT_NE(refused(bad), nullptr) << bit;
  }
}

// Whatever is accepted must be within bounds and must encode to the same bytes again.
TEST(Wire, RandomAndMutatedBytes) {
  std::mt19937_64 random(20);
  const Bytes good = encoded(sample());
  unsigned accepted = 0;
  for (int round = 0; round < 200000; ++round) {
    Bytes bytes = good;
    if (round % 2 == 0) {
      for (std::byte& each : bytes) each = std::byte(random());
      ASSERT_NE(refused(bytes), nullptr) << "64 random bytes carry no magic";
    }
    for (unsigned i = 0; i < 1 + random() % 3; ++i)
      bytes[random() % kMessageBytes] = std::byte(random());
    ivy::Message message;
    if (decode(bytes.data(), kBounds, message) != nullptr) continue;
    ++accepted;
    EXPECT_EQ(encoded(message), bytes);
    EXPECT_TRUE(message.from < 4 && message.to < 4 && message.requester < 4 && message.lane <= 8);
    EXPECT_LT(message.gfn, kBounds.pages);
  }
  EXPECT_GT(accepted, 0u);
}

}  // namespace
}  // namespace xenspan::dsm::wire
