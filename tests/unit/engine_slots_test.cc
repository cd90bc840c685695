// A manager that is just getting a slot, message by message: the peer is this test.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm::test {
namespace {

constexpr HostId kPeer = 0, kSelf = 1;
constexpr Gfn kSize = 4096;
constexpr const char* kOver = "the test is over";
constexpr auto kPatience = std::chrono::seconds(60);

// Delivers what the test says, and keeps what the engine sends.
class ScriptedTransport final : public Transport {
 public:
  void say(const ivy::Message& message) {
    {
      const std::lock_guard guard(lock_);
      coming_.push_back(message);
    }
    changed_.notify_all();
  }
  // The first message of this kind that has been sent, or is sent within the test's patience.
  bool heard(ivy::Kind kind, ivy::Message& message) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, kPatience, [&] {
      const auto found = std::find_if(sent_.begin(), sent_.end(), [kind](const ivy::Message& each) {
        return each.kind == kind;
      });
      if (found == sent_.end()) return false;
      message = *found;
      return true;
    });
  }

  int register_frames(std::byte*, std::size_t) noexcept override { return 0; }
  int send(const ivy::Message& message, const std::byte*) noexcept override {
    {
      const std::lock_guard guard(lock_);
      sent_.push_back(message);
    }
    changed_.notify_all();
    return 0;
  }
  Lane borrow() noexcept override { return kServiceLane; }
  void give_back(Lane) noexcept override {}
  int wait(Lane, Sink&, bool (*)(void*), void*) noexcept override { return ECANCELED; }
  void serve(Sink& sink, const std::function<long()>& idle) override {
    std::unique_lock guard(lock_);
    while (!stopped_) {
      guard.unlock();
      idle();
      guard.lock();
      if (coming_.empty()) changed_.wait_for(guard, std::chrono::milliseconds(1));
      const std::vector<ivy::Message> now = std::exchange(coming_, {});
      guard.unlock();
      for (const ivy::Message& message : now) EXPECT_TRUE(sink.deliver(message));
      sink.flush();
      guard.lock();
    }
  }
  void nudge() noexcept override { changed_.notify_all(); }
  void stop() noexcept override {
    {
      const std::lock_guard guard(lock_);
      stopped_ = true;
    }
    changed_.notify_all();
  }
  Traffic traffic() const noexcept override { return {}; }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<ivy::Message> coming_, sent_;  // GUARDED_BY(lock_)
  bool stopped_ = false;                     // GUARDED_BY(lock_)
};

// A request that came before the page's row is served after the hold window of the page, which this
// host has got a moment ago.
TEST(EngineSlots, ARequestThatWasEarlyOutlivesTheHoldWindow) {
  RightsTable rights(2, kSize);
  MemoryBackend backend(kSelf, kSize, rights);
  ScriptedTransport transport;
  EngineConfig config;
  config.self = kSelf;
  config.hosts = 2;
  config.pages = kSize;
  config.prefetch = 0;
  config.hold_us = 300'000;
  auto made = Engine::create(config, backend, transport,
                             [](const std::string& cause) { EXPECT_EQ(cause, kOver); });
  ASSERT_TRUE(made) << made.error().message;
  Engine& engine = **made;
  std::thread server([&] { engine.serve(); });
  const SlotTable table(2);
  Gfn gfn = 0;
  while (table.manager(gfn) != kPeer) ++gfn;
  const unsigned slot = SlotTable::slot_of(gfn);
  const auto from_peer = [](ivy::Kind kind, Gfn about) {
    ivy::Message message{.kind = kind, .from = kPeer, .to = kSelf, .requester = kPeer};
    message.gfn = about;
    return message;
  };

  // The page comes here.
  std::thread writer([&] { EXPECT_NE(engine.acquire(gfn, Right::kExclusive), Outcome::kStopped); });
  ivy::Message request, ask, grant;
  ASSERT_TRUE(transport.heard(ivy::Kind::kWriteRequest, request));
  ivy::Message given = from_peer(ivy::Kind::kGrant, gfn);
  given.requester = kSelf;
  given.payload = ivy::Payload::kZero;
  given.right = Right::kExclusive;
  given.version = 1;
  given.txn = request.txn;
  transport.say(given);
  writer.join();

  // So does its slot; the peer's request for it is there before the page's row.
  transport.say(from_peer(ivy::Kind::kSlotOffer, slot));
  ASSERT_TRUE(transport.heard(ivy::Kind::kSlotAsk, ask));
  ivy::Message wanted = from_peer(ivy::Kind::kWriteRequest, gfn);
  wanted.txn = 77;
  transport.say(wanted);
  ivy::Message row = from_peer(ivy::Kind::kRow, gfn);
  row.requester = kSelf;  // the owner
  row.version = 1;
  row.moves = 1;
  ivy::set_copyset(row, mask_of(kSelf));
  transport.say(row);
  ivy::Message rows = from_peer(ivy::Kind::kSlotRows, slot);
  rows.txn = 1;
  rows.moves = 1;
  transport.say(rows);

  EXPECT_TRUE(transport.heard(ivy::Kind::kGrant, grant)) << "the request is lost";
  EXPECT_EQ(grant.gfn, gfn);
  EXPECT_EQ(grant.to, kPeer);
  EXPECT_EQ(grant.txn, wanted.txn);
  engine.stop(kOver);
  server.join();
}

}  // namespace
}  // namespace xenspan::dsm::test
