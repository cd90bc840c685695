// The 64-byte message: round trip, runs, and refusal of everything the format does not define.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "dsm-rdma/transport/parcels.h"
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
  wire::Run run;
  return decode(bytes.data(), kBounds, run);
}

Bytes encoded(const wire::Run& run) {
  Bytes bytes;
  encode(run, kBounds.epoch, bytes.data());
  return bytes;
}

// The first of messages that can be a run.
ivy::Message first_of_run() {
  ivy::Message message = sample();
  message.payload = ivy::Payload::kNone;
  message.kind = ivy::Kind::kReadRequest;
  message.gfn = 100;
  return message;
}

ivy::Message next_of_run(ivy::Message message, std::uint32_t step) {
  ++message.gfn;
  message.txn += step;
  return message;
}

wire::Run run_of(const ivy::Message& first, unsigned count, std::uint32_t step) {
  wire::Run run(first);
  ivy::Message message = first;
  while (run.count < count && run.take(message = next_of_run(message, step))) {
  }
  return run;
}

TEST(Wire, RoundTrip) {
  for (unsigned kind = 1; kind <= 7; ++kind) {
    ivy::Message message = sample();
    message.kind = static_cast<ivy::Kind>(kind);
    if (message.kind != ivy::Kind::kGrant) message.payload = ivy::Payload::kNone;
    message.discard = kind % 2 == 0;
    wire::Run back;
    ASSERT_EQ(decode(encoded(message).data(), kBounds, back), nullptr) << kind;
    EXPECT_EQ(back, wire::Run(message));
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
  for (std::size_t at : {std::size_t{36}, std::size_t{40}, std::size_t{49}, std::size_t{63}}) {
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

TEST(Wire, NeighboursThatAreAlikeAreOneMessage) {
  for (const std::uint32_t step : {0u, 1u, 1u << 21 | 1u, ~0u}) {
    for (const unsigned count : {2u, 17u, kMostRun}) {
      const wire::Run run = run_of(first_of_run(), count, step);
      ASSERT_EQ(run.count, count);
      wire::Run back;
      ASSERT_EQ(decode(encoded(run).data(), kBounds, back), nullptr);
      ASSERT_EQ(back, run);
      ivy::Message message = first_of_run();
      for (unsigned i = 0; i < count; ++i, message = next_of_run(message, step))
        EXPECT_EQ(back.at(i), message);
    }
  }
  EXPECT_EQ(run_of(first_of_run(), kMostRun + 1, 1).count, kMostRun);
}

TEST(Wire, WhatIsNotAlikeIsNoRun) {
  const auto taken = [](auto change) {
    ivy::Message next = next_of_run(first_of_run(), 1);
    change(next);
    return wire::Run(first_of_run()).take(next);
  };
  EXPECT_TRUE(taken([](auto&) {}));
  EXPECT_FALSE(taken([](auto& m) { ++m.gfn; }));
  EXPECT_FALSE(taken([](auto& m) { --m.gfn; }));
  EXPECT_FALSE(taken([](auto& m) { m.kind = ivy::Kind::kWriteRequest; }));
  EXPECT_FALSE(taken([](auto& m) { m.right = Right::kExclusive; }));
  EXPECT_FALSE(taken([](auto& m) { m.discard = true; }));
  EXPECT_FALSE(taken([](auto& m) { m.from = 3; }));
  EXPECT_FALSE(taken([](auto& m) { m.to = 3; }));
  EXPECT_FALSE(taken([](auto& m) { m.requester = 3; }));
  EXPECT_FALSE(taken([](auto& m) { ++m.version; }));
  EXPECT_FALSE(taken([](auto& m) { ++m.reads; }));
  EXPECT_FALSE(taken([](auto& m) { --m.acks; }));
  EXPECT_FALSE(taken([](auto& m) { ++m.moves; }));
  EXPECT_FALSE(taken([](auto& m) { --m.lane; }));
  wire::Run three = run_of(first_of_run(), 3, 2);
  EXPECT_FALSE(three.take(next_of_run(three.at(2), 3))) << "another step";
  EXPECT_TRUE(three.take(next_of_run(three.at(2), 2)));
  // Pages have their bytes behind them, rows their copyset, slots are no pages.
  ivy::Message page = sample();
  page.gfn = 100;
  EXPECT_FALSE(wire::Run(page).take(next_of_run(page, 1)));
  ivy::Message slot = first_of_run();
  slot.kind = ivy::Kind::kSlotMoved;
  EXPECT_FALSE(wire::Run(slot).take(next_of_run(slot, 1)));
  ivy::Message row = first_of_run();
  row.kind = ivy::Kind::kRow;
  EXPECT_FALSE(wire::Run(row).take(next_of_run(row, 1)));
}

TEST(Wire, RefusesRunsThatCannotBe) {
  const auto with = [](const ivy::Message& first, unsigned count, std::uint32_t step) {
    wire::Run run(first);
    run.count = count;
    run.step = step;
    return refused(encoded(run));
  };
  const ivy::Message good = first_of_run();
  EXPECT_EQ(with(good, kMostRun, 1), nullptr);
  EXPECT_NE(with(good, kMostRun + 1, 1), nullptr);
  EXPECT_NE(with(good, 256, 1), nullptr);
  EXPECT_NE(with(good, 1, 1), nullptr) << "a step without a run";
  ivy::Message last = good;
  last.gfn = kBounds.pages - 3;
  EXPECT_EQ(with(last, 3, 1), nullptr);
  EXPECT_NE(with(last, 4, 1), nullptr) << "its last page is outside";
  ivy::Message page = sample();
  page.gfn = 100;
  EXPECT_EQ(with(page, 1, 0), nullptr);
  EXPECT_NE(with(page, 2, 0), nullptr);
  ivy::Message slot = good;
  slot.kind = ivy::Kind::kSlotOffer;
  EXPECT_NE(with(slot, 2, 0), nullptr);
  ivy::Message row = good;
  row.kind = ivy::Kind::kRow;
  row.acks = row.lane = 0;
  row.txn = 0;
  EXPECT_NE(with(row, 2, 0), nullptr);
}

// Messages of two kinds in turn, and pages between them: nothing is lost, each page stays with its
// own message, and the rest are two runs.
TEST(Wire, MessagesJoinTheRunTheyBelongTo) {
  constexpr std::size_t kPages = 20;
  std::vector<Outgoing> outgoing;
  const std::array<std::byte, kPageSize> contents{};
  for (Gfn gfn = 0; gfn < kPages; ++gfn) {
    ivy::Message message = first_of_run();
    message.gfn = gfn;
    message.txn = static_cast<std::uint32_t>(gfn * 7);
    message.kind = ivy::Kind::kGrant;
    outgoing.push_back({wire::Run(message), nullptr});
    message.kind = ivy::Kind::kInvalidateAck;
    outgoing.push_back({wire::Run(message), nullptr});
    if (gfn % 16 != 0) continue;
    message.kind = ivy::Kind::kGrant;
    message.gfn += 500;
    message.payload = ivy::Payload::kPage;
    outgoing.push_back({wire::Run(message), contents.data()});
  }
  std::vector<const Outgoing*> together;
  for (const Outgoing& each : outgoing) together.push_back(&each);
  const Parcels<64> parcels(together.data(), together.size());
  EXPECT_EQ(parcels.pages(), 2u);
  EXPECT_EQ(parcels.size(), 2 + parcels.pages());
  std::vector<ivy::Message> apart;
  for (const Outgoing& parcel : parcels) {
    EXPECT_EQ(parcel.page != nullptr, parcel.run.first.payload == ivy::Payload::kPage);
    for (unsigned i = 0; i < parcel.run.count; ++i) apart.push_back(parcel.run.at(i));
  }
  ASSERT_EQ(apart.size(), outgoing.size());
  for (const Outgoing& each : outgoing)
    EXPECT_EQ(std::count(apart.begin(), apart.end(), each.run.first), 1);
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
    wire::Run run;
    if (decode(bytes.data(), kBounds, run) != nullptr) continue;
    ++accepted;
    EXPECT_EQ(encoded(run), bytes);
    const ivy::Message message = run.at(run.count - 1);
    EXPECT_TRUE(message.from < 4 && message.to < 4 && message.requester < 4 && message.lane <= 8);
    EXPECT_LT(message.gfn, kBounds.pages);
  }
  EXPECT_GT(accepted, 0u);
}

}  // namespace
}  // namespace xenspan::dsm::wire
