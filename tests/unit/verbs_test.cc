// What the verbs transport does without a device: credit, shapes, the bytes that peers exchange,
// the choice of a GID, and what it says where there is no device. With a device: tests/lab.
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <random>
#include <thread>

#include "dsm-rdma/transport/verbs/device.h"
#include "dsm-rdma/transport/verbs/envelope.h"
#include "dsm-rdma/transport/verbs/flow.h"
#include "dsm-rdma/transport/verbs/setup_record.h"
#include "dsm-rdma/transport/verbs/shapes.h"
#include "dsm-rdma/transport/verbs/verbs_transport.h"
#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm::verbs {
namespace {

TEST(VerbsFlow, ASenderStopsWhenThePeerHasNoBufferLeft) {
  SendWindow window(3, 2);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(window.may_send());
    window.count(false);
  }
  EXPECT_FALSE(window.may_send());
  EXPECT_TRUE(window.hear(1));
  EXPECT_TRUE(window.may_send());
}

TEST(VerbsFlow, ABounceFrameIsFreeWhenItsMessageHasBeenTaken) {
  SendWindow window(10, 2);
  EXPECT_EQ(window.next_bounce(), 0u);
  window.count(true);
  window.count(false);
  EXPECT_EQ(window.next_bounce(), 1u);
  window.count(true);
  EXPECT_EQ(window.next_bounce(), 0u);
  EXPECT_FALSE(window.bounce_free());  // message 1 is under way
  EXPECT_TRUE(window.hear(1));
  EXPECT_TRUE(window.bounce_free());
  window.count(true);
  EXPECT_TRUE(window.hear(2));
  EXPECT_FALSE(window.bounce_free());  // message 3 is not taken
  EXPECT_TRUE(window.hear(3));
  EXPECT_TRUE(window.bounce_free());
}

TEST(VerbsFlow, NoFramesNoPages) {
  const SendWindow window(10, 0);
  EXPECT_FALSE(window.bounce_free());
}

TEST(VerbsFlow, ACountThatCannotBeIsRefused) {
  SendWindow window(10, 1);
  for (int i = 0; i < 5; ++i) window.count(false);
  EXPECT_FALSE(window.hear(6));  // more than was sent
  EXPECT_TRUE(window.hear(4));
  EXPECT_FALSE(window.hear(3));  // less than it said before
  EXPECT_FALSE(window.hear(0x80000000));
  EXPECT_TRUE(window.hear(5));
}

// A sender and a receiver with a lossless queue between them: never more in flight than buffers,
// never a bounce frame in use twice, never a standstill.
TEST(VerbsFlow, NeverOverrunsAndNeverStands) {
  constexpr std::uint32_t kBuffers = 8, kBounce = 3;
  SendWindow sender(kBuffers, kBounce);
  ReceiveCount receiver(kBuffers, kBounce);
  std::mt19937 random(4);
  std::deque<int> wire;  // bounce frame, or -1
  std::uint32_t told = 0;
  std::array<bool, kBounce> used{};
  std::uint64_t pages = 0;
  for (unsigned step = 0; step < 200'000; ++step) {
    if (random() % 2 == 0) {
      const bool page = random() % 3 == 0;
      ASSERT_TRUE(sender.hear(told));
      if (!sender.may_send() || (page && !sender.bounce_free())) {
        ASSERT_FALSE(wire.empty() && told == receiver.taken());
        continue;
      }
      if (page) {
        ASSERT_FALSE(used[sender.next_bounce()]);
        used[sender.next_bounce()] = true;
        ++pages;
      }
      wire.push_back(page ? static_cast<int>(sender.next_bounce()) : -1);
      sender.count(page);
      ASSERT_LE(wire.size(), kBuffers);
    } else if (!wire.empty()) {
      if (wire.front() >= 0) used[static_cast<std::size_t>(wire.front())] = false;
      wire.pop_front();
      if (receiver.count()) told = receiver.taken();
    }
    // All was taken, and what has not been told leaves room for a message and a page.
    if (wire.empty()) {
      ASSERT_TRUE(sender.hear(told));
      ASSERT_TRUE(sender.may_send() && sender.bounce_free());
    }
  }
  EXPECT_GT(pages, 10'000u);
}

// How much of `buffers` a sender can count on: what has been taken but not told is not free to it.
std::uint32_t usable(const LinkShape& shape, bool of_bounce) {
  ReceiveCount count(shape.buffers, shape.bounce);
  std::uint32_t untold = 0;
  while (!count.count()) ++untold;
  return (of_bounce ? shape.bounce : shape.buffers) - untold;
}

TEST(VerbsShapes, WindowsCoverTheAnswersAndRequestsOfALane) {
  for (const unsigned hosts : {2u, 8u, 64u}) {
    const MeshShape mesh{8, hosts, service_buffers(8, hosts, 1 << 20, 1 << 15)};
    EXPECT_GE(usable(shape_of(false, 3, mesh), false), Requests::kWindow);
    // From one peer a grant and an acknowledgement for each request, and one page.
    EXPECT_GE(usable(shape_of(true, 3, mesh), false), 2 * Requests::kWindow);
    EXPECT_GE(usable(shape_of(true, 3, mesh), true), Requests::kWindow);
    EXPECT_GE(usable(shape_of(true, kServiceLane, mesh), false), 2 * kServiceWindow);
    EXPECT_GE(usable(shape_of(true, kServiceLane, mesh), true), kServiceWindow);
  }
  // Pages are answers: they go from a peer's end to the owner's.
  EXPECT_EQ(shape_of(true, 1, {8, 2, 64}).staging, 0u);
  EXPECT_EQ(shape_of(false, 1, {8, 2, 64}).bounce, 0u);
}

// Every request under way in the domain may have one peer send this host a forward or an
// invalidation; besides come that peer's own requests on the service lane and its announcement.
TEST(VerbsShapes, TheServiceLaneHasABoundThatTheBacklogCovers) {
  for (const unsigned lanes : {1u, 8u, 63u}) {
    for (unsigned hosts = 2; hosts <= kMaxHosts; ++hosts) {
      const std::uint64_t requests =
          std::uint64_t{hosts} * (lanes * Requests::kWindow + kServiceWindow);
      ASSERT_GE(service_bound(lanes, hosts), requests + kServiceWindow + 1);
    }
  }
  // Few hosts: nothing ever waits.
  for (const unsigned hosts : {2u, 3u}) {
    const MeshShape mesh{8, hosts, service_buffers(8, hosts, 1 << 20, 1 << 15)};
    EXPECT_GE(usable(shape_of(false, kServiceLane, mesh), false), service_bound(8, hosts));
  }
  EXPECT_EQ(service_buffers(8, 64, 1 << 22, 1 << 15), kMostServiceBuffers);
}

TEST(VerbsShapes, WhatADeviceHoldsIsNeverExceededAndMoreHostsAreRefused) {
  // rxe, and a device with small queues.
  for (const std::uint32_t entries : {32767u, 4095u}) {
    for (const std::uint32_t buffers : {1u << 14, 128u}) {
      const unsigned most = most_hosts(8, entries, buffers);
      EXPECT_GE(most, 2u);
      for (unsigned hosts = 2; hosts <= kMaxHosts; ++hosts) {
        const std::uint32_t fit = service_buffers(8, hosts, entries, buffers);
        ASSERT_EQ(fit != 0, hosts <= most);
        if (fit == 0) continue;
        ASSERT_GE(fit, kFewestServiceBuffers);
        ASSERT_LE(fit, buffers);
        ASSERT_LE(service_entries({8, hosts, fit}), entries);
      }
    }
  }
  EXPECT_GE(most_hosts(8, 32767, 1 << 14), 20u);
  EXPECT_EQ(most_hosts(8, 1 << 20, 1 << 14), kMaxHosts);
  EXPECT_LT(most_hosts(8, 4095, 1 << 14), 12u);
  EXPECT_EQ(most_hosts(8, 100, 1 << 14), 1u);
}

TEST(VerbsShapes, LockedMemoryCoversTheBuffers) {
  for (const unsigned hosts : {2u, 5u, 64u}) {
    const MeshShape mesh{8, hosts, service_buffers(8, hosts, 1 << 20, 1 << 15)};
    std::uint64_t bytes = 0;
    for (const bool own : {true, false}) {
      for (Lane lane = 0; lane <= 8; ++lane) {
        const LinkShape shape = shape_of(own, lane, mesh);
        bytes += shape.buffers * kReceiveStride + (shape.bounce + shape.staging) * kBounceStride;
      }
    }
    EXPECT_GT(locked_bytes(8, hosts), bytes * (hosts - 1));
    EXPECT_LT(locked_bytes(8, hosts), std::uint64_t{16} * (hosts - 1) << 20);
  }
  EXPECT_EQ(locked_bytes(8, 1), 0u);
}

// Without credit messages wait in order; no message is lost and none overtakes another.
TEST(VerbsBacklog, KeepsTheOrder) {
  Backlog backlog(5);
  std::mt19937 random(9);
  std::uint64_t in = 0, out = 0;
  for (unsigned step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0 && !backlog.full()) {
      std::memcpy(backlog.put(), &in, sizeof in);
      ++in;
    } else if (!backlog.empty()) {
      std::uint64_t got;
      std::memcpy(&got, backlog.take(), sizeof got);
      ASSERT_EQ(got, out++);
    }
    ASSERT_EQ(backlog.empty(), in == out);
    ASSERT_EQ(backlog.full(), in - out == 5);
  }
  EXPECT_GT(out, 5000u);
}

SetupRecord some_record(unsigned lanes) {
  SetupRecord record;
  record.mtu = IBV_MTU_4096;
  record.link_layer = 2;
  record.lid = 77;
  record.rkey = 0x1234;
  for (std::size_t i = 0; i < record.gid.size(); ++i)
    record.gid[i] = static_cast<std::uint8_t>(i * 3);
  for (std::uint32_t lane = 0; lane <= lanes; ++lane) {
    record.own.push_back({17 + lane, 0xabcdef, 64, 32, 0x7f0000001000u + lane * 4096u, 0x7f00ff00});
    record.theirs.push_back({99 + lane, 3, 32, 0, 0, 0x7f00ff40});
  }
  return record;
}

TEST(VerbsSetup, ARecordSurvivesTheWire) {
  const SetupRecord record = some_record(8);
  std::vector<std::byte> bytes(record_bytes(8));
  encode(record, bytes.data());
  SetupRecord read;
  ASSERT_EQ(decode(bytes.data(), 8, read), nullptr);
  EXPECT_EQ(read, record);
}

TEST(VerbsSetup, WhatCannotBeIsRefused) {
  std::vector<std::byte> good(record_bytes(2));
  encode(some_record(2), good.data());
  const auto refused = [&](std::size_t at, std::uint8_t value) {
    std::vector<std::byte> bad = good;
    bad[at] = static_cast<std::byte>(value);
    SetupRecord read;
    return decode(bad.data(), 2, read) != nullptr;
  };
  EXPECT_TRUE(refused(0, 0));   // magic
  EXPECT_TRUE(refused(4, 9));   // version
  EXPECT_TRUE(refused(5, 3));   // lanes
  EXPECT_TRUE(refused(6, 0));   // mtu
  EXPECT_TRUE(refused(6, 6));   //
  EXPECT_TRUE(refused(10, 1));  // reserved
  EXPECT_TRUE(refused(35, 1));  // a queue pair's number of 25 bits
  EXPECT_TRUE(refused(39, 1));  // a packet number of 25 bits
  EXPECT_TRUE(refused(43, 1));  // 16 million receive buffers
  EXPECT_TRUE(refused(40, 0));  // none
  EXPECT_TRUE(refused(47, 1));  // bounce frames
  EXPECT_TRUE(refused(56, 1));  // a counter that is not aligned
  EXPECT_FALSE(refused(8, 1));  // any lid is one
}

TEST(VerbsEnvelope, SurvivesTheWire) {
  for (const Envelope& envelope : {Envelope{Type::kMessage, Placement::kNoPage, 0},
                                   Envelope{Type::kFrames, Placement::kNoPage, 0},
                                   Envelope{Type::kMessage, Placement::kBounce, 31},
                                   Envelope{Type::kMessage, Placement::kFrame, 0}}) {
    std::byte bytes[kEnvelopeBytes] = {};
    encode(envelope, bytes);
    Envelope read;
    ASSERT_EQ(decode(bytes, sizeof bytes, 32, read), nullptr);
    EXPECT_EQ(read, envelope);
  }
}

TEST(VerbsEnvelope, WhatCannotBeIsRefused) {
  Envelope read;
  const auto refused = [&](const Envelope& envelope, unsigned bounce_frames,
                           std::size_t bytes_received = kEnvelopeBytes) {
    std::byte bytes[kEnvelopeBytes] = {};
    encode(envelope, bytes);
    return decode(bytes, bytes_received, bounce_frames, read) != nullptr;
  };
  EXPECT_TRUE(refused({}, 32, kEnvelopeBytes - 1));
  EXPECT_TRUE(refused({}, 32, kEnvelopeBytes + 1));
  EXPECT_TRUE(refused({static_cast<Type>(0), Placement::kNoPage, 0}, 32));
  EXPECT_TRUE(refused({static_cast<Type>(3), Placement::kNoPage, 0}, 32));
  EXPECT_TRUE(refused({Type::kMessage, static_cast<Placement>(3), 0}, 32));
  EXPECT_TRUE(refused({Type::kFrames, Placement::kFrame, 0}, 32));
  EXPECT_TRUE(refused({Type::kMessage, Placement::kBounce, 32}, 32));
  EXPECT_TRUE(refused({Type::kMessage, Placement::kBounce, 0}, 0));
  EXPECT_TRUE(refused({Type::kMessage, Placement::kFrame, 1}, 32));
  std::byte bytes[kEnvelopeBytes] = {};
  encode(Envelope{}, bytes);
  bytes[70] = std::byte{1};
  EXPECT_NE(decode(bytes, sizeof bytes, 32, read), nullptr);
}

TEST(VerbsEnvelope, FramesOfAnotherSizeAreRefused) {
  std::byte contents[kContentsBytes];
  FramesNote read;
  encode(FramesNote{0x7f0000000000, 1 << 20, 5}, contents);
  ASSERT_EQ(decode(contents, 1 << 20, read), nullptr);
  EXPECT_EQ(read, (FramesNote{0x7f0000000000, 1 << 20, 5}));
  EXPECT_NE(decode(contents, 1 << 21, read), nullptr);
  encode(FramesNote{~std::uint64_t{0} - 4096, 1 << 20, 5}, contents);  // past the end of addresses
  EXPECT_NE(decode(contents, 1 << 20, read), nullptr);
}

ibv_gid_entry gid_entry(unsigned index, unsigned port, unsigned type, std::uint8_t last) {
  ibv_gid_entry entry{};
  entry.gid_index = index;
  entry.port_num = port;
  entry.gid_type = type;
  entry.gid.raw[15] = last;
  return entry;
}

TEST(VerbsDevice, TheGidIsThatOfTheAddress) {
  const std::vector<ibv_gid_entry> table = {
      gid_entry(0, 1, IBV_GID_TYPE_ROCE_V1, 9), gid_entry(1, 1, IBV_GID_TYPE_ROCE_V2, 9),
      gid_entry(2, 1, IBV_GID_TYPE_ROCE_V2, 9), gid_entry(0, 2, IBV_GID_TYPE_ROCE_V2, 5)};
  DeviceWish wish;
  wish.address[15] = 9;
  EXPECT_EQ(choose_gid(table, wish), 1);  // RoCE v2, the lowest index
  wish.port = 2;
  EXPECT_EQ(choose_gid(table, wish), -1);
  wish.address[15] = 5;
  EXPECT_EQ(choose_gid(table, wish), 3);
  wish.port = 0;
  wish.gid_index = 2;
  EXPECT_EQ(choose_gid(table, wish), 2);  // named: whatever its address
  wish.gid_index = 7;
  EXPECT_EQ(choose_gid(table, wish), -1);
}

struct TwoAcceptors {
  explicit TwoAcceptors(bool encrypt, unsigned most_hosts = 2) {
    for (HostId self = 0; self < 2; ++self) {
      std::uint16_t port;
      tcp::Acceptor::Config acceptor;
      acceptor.listening = test::listen_on_loopback(port);
      acceptor.secret = test::some_secret(3);
      acceptor.self = self;
      acceptor.hosts = most_hosts;
      acceptor.encrypt = encrypt;
      auto started = tcp::Acceptor::start(std::move(acceptor));
      acceptors[self] = std::move(*started);
      config.hosts.push_back({"h" + std::to_string(self), "127.0.0.1", port});
    }
    config.pages = 16;
    config.timeout_ms = 10000;
  }
  std::array<std::unique_ptr<tcp::Acceptor>, 2> acceptors;
  VerbsConfig config;
};

TEST(VerbsSetup, EncryptionIsRefused) {
  TwoAcceptors two(true);
  const auto made = connect_verbs(two.config, *two.acceptors[0]);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, EINVAL);
}

// Both have agreed over the stream; then each needs a device. Those of a Xen domain take the
// numbers of hosts that are no members yet.
class VerbsSetupOfHosts : public testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(MostHosts, VerbsSetupOfHosts, testing::Values(2U, kMaxHosts));

TEST_P(VerbsSetupOfHosts, ADeviceThatIsNotThereIsNamed) {
  TwoAcceptors two(false, GetParam());
  two.config.device = "xenspan_none";
  std::array<Error, 2> errors;
  std::array<std::thread, 2> running;
  for (std::size_t self = 0; self < 2; ++self) {
    running[self] = std::thread([&, self] {
      auto made = connect_verbs(two.config, *two.acceptors[self]);
      if (!made) errors[self] = made.error();
    });
  }
  for (std::thread& each : running) each.join();
  for (const Error& error : errors) EXPECT_EQ(error.code, ENODEV) << error.message;
}

TEST(VerbsSetup, MoreHostsThanTheAcceptorTakesAreRefused) {
  TwoAcceptors two(false);
  two.config.hosts.push_back({"h2", "127.0.0.1", 1});
  const auto made = connect_verbs(two.config, *two.acceptors[0]);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, EINVAL);
}

TEST(VerbsSetup, AHostThatDoesNotComeIsNamed) {
  TwoAcceptors two(false);
  two.config.timeout_ms = 100;
  const auto made = connect_verbs(two.config, *two.acceptors[0]);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ETIMEDOUT);
  EXPECT_NE(made.error().message.find("h1"), std::string::npos) << made.error().message;
}

}  // namespace
}  // namespace xenspan::dsm::verbs
