// What waits in an engine for its time, message by message: the peer is this test.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
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
  // Set before the engine runs: what the peer answers at once.
  std::function<std::optional<ivy::Message>(const ivy::Message&)> answer;
  void say(const ivy::Message& message) {
    {
      const std::lock_guard guard(lock_);
      coming_.push_back(message);
    }
    changed_.notify_all();
  }
  // The first message of this kind that has been sent, or is sent within the test's patience.
  bool heard(
      ivy::Kind kind, ivy::Message& message,
      const std::function<bool(const ivy::Message&)>& wanted = [](const auto&) { return true; }) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, kPatience, [&] {
      const auto found = std::find_if(sent_.begin(), sent_.end(), [&](const ivy::Message& each) {
        return each.kind == kind && wanted(each);
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
      if (const auto said = answer ? answer(message) : std::nullopt) coming_.push_back(*said);
    }
    changed_.notify_all();
    if (two_threads) both_borrow();
    return 0;
  }
  // Two threads with lanes of their own: the first one's request is not sent before the second one
  // takes its lane, and that takes a while.
  std::atomic<bool> two_threads{false};
  bool both_borrow() {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, kPatience, [&] { return borrowed_ == 2; });
  }
  Lane borrow() noexcept override {
    if (!two_threads) return kServiceLane;
    Lane lane = 0;
    {
      const std::lock_guard guard(lock_);
      lane = ++borrowed_;
    }
    changed_.notify_all();
    if (lane == 2) std::this_thread::sleep_for(std::chrono::milliseconds(200));
    return lane;
  }
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
  Lane borrowed_ = 0;                        // GUARDED_BY(lock_)
};

ivy::Message from_peer(ivy::Kind kind, Gfn about) {
  ivy::Message message{.kind = kind, .from = kPeer, .to = kSelf, .requester = kPeer};
  message.gfn = about;
  return message;
}

// The page, empty, and the right to write it.
ivy::Message grant_for(const ivy::Message& request) {
  ivy::Message grant = from_peer(ivy::Kind::kGrant, request.gfn);
  grant.requester = kSelf;
  grant.payload = ivy::Payload::kZero;
  grant.right = Right::kExclusive;
  grant.version = 1;
  grant.txn = request.txn;
  return grant;
}

class EngineWaits : public ::testing::Test {
 protected:
  void start(unsigned hold_us) {
    EngineConfig config;
    config.self = kSelf;
    config.hosts = 2;
    config.pages = kSize;
    config.prefetch = 0;
    config.hold_us = hold_us;
    auto made = Engine::create(config, backend_, transport_,
                               [](const std::string& cause) { EXPECT_EQ(cause, kOver); });
    ASSERT_TRUE(made) << made.error().message;
    engine_ = std::move(*made);
    server_ = std::thread([this] { engine_->serve(); });
  }
  void TearDown() override {
    if (engine_) engine_->stop(kOver);
    if (server_.joinable()) server_.join();
  }
  void write(Gfn gfn) { EXPECT_NE(engine_->acquire(gfn, Right::kExclusive), Outcome::kStopped); }
  // The `count`th of the pages that the peer manages.
  static Gfn managed_by_peer(unsigned count) {
    const SlotTable table(2);
    for (Gfn gfn = 0;; ++gfn)
      if (table.manager(gfn) == kPeer && count-- == 0) return gfn;
  }

  RightsTable rights_{2, kSize};
  MemoryBackend backend_{kSelf, kSize, rights_};
  ScriptedTransport transport_;
  std::unique_ptr<Engine> engine_;
  std::thread server_;
};

// A request that came before the page's row is served after the hold window of the page, which this
// host has got a moment ago.
TEST_F(EngineWaits, ARequestThatWasEarlyOutlivesTheHoldWindow) {
  start(300'000);
  const Gfn gfn = managed_by_peer(0);
  const unsigned slot = SlotTable::slot_of(gfn);
  // The page comes here.
  std::thread writer([&] { write(gfn); });
  ivy::Message request, ask, grant;
  ASSERT_TRUE(transport_.heard(ivy::Kind::kWriteRequest, request));
  transport_.say(grant_for(request));
  writer.join();

  // So does its slot; the peer's request for it is there before the page's row.
  transport_.say(from_peer(ivy::Kind::kSlotOffer, slot));
  ASSERT_TRUE(transport_.heard(ivy::Kind::kSlotAsk, ask));
  ivy::Message wanted = from_peer(ivy::Kind::kWriteRequest, gfn);
  wanted.txn = 77;
  transport_.say(wanted);
  ivy::Message row = from_peer(ivy::Kind::kRow, gfn);
  row.requester = kSelf;  // the owner
  row.version = 1;
  row.moves = 1;
  ivy::set_copyset(row, mask_of(kSelf));
  transport_.say(row);
  ivy::Message rows = from_peer(ivy::Kind::kSlotRows, slot);
  rows.txn = 1;
  rows.moves = 1;
  transport_.say(rows);

  EXPECT_TRUE(transport_.heard(ivy::Kind::kGrant, grant)) << "the request is lost";
  EXPECT_EQ(grant.gfn, gfn);
  EXPECT_EQ(grant.to, kPeer);
  EXPECT_EQ(grant.txn, wanted.txn);
}

// Two threads want a page that never comes. The second one is held up on its way to where the first
// one's request shows; the domain stops meanwhile.
TEST_F(EngineWaits, WhoComesToWaitWhileTheDomainStopsDoesNotWait) {
  start(0);
  const Gfn gfn = managed_by_peer(0);
  transport_.two_threads = true;
  backend_.frames_move = true;  // so that the first one makes the frame ready with the page's lock
  backend_.frame_takes_us = 1'000'000;
  std::promise<void> first_over, second_over;
  const auto wanting = [&](std::promise<void>& over) {
    EXPECT_EQ(engine_->acquire(gfn, Right::kExclusive), Outcome::kStopped);
    over.set_value();
  };
  std::thread first([&] { wanting(first_over); });
  ivy::Message request;
  ASSERT_TRUE(transport_.heard(ivy::Kind::kWriteRequest, request));
  std::thread second([&] { wanting(second_over); });
  ASSERT_TRUE(transport_.both_borrow());
  // By then it waits for the page's lock, most likely.
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  engine_->stop(kOver);
  for (std::promise<void>* each : {&first_over, &second_over}) {
    if (each->get_future().wait_for(kPatience) == std::future_status::ready) continue;
    ADD_FAILURE() << "a thread waits for ever";
    std::abort();
  }
  first.join();
  second.join();
}

// No more messages can be held back than there is room for; one that came early is not forgotten
// for want of it.
TEST_F(EngineWaits, AMessageThatWasEarlyNeedsNoRoomAmongTheHeld) {
  constexpr unsigned kMore = 400;  // than there is room for
  const Gfn last = managed_by_peer(kMore);
  transport_.answer = [last](const ivy::Message& sent) -> std::optional<ivy::Message> {
    if (sent.kind != ivy::Kind::kWriteRequest || sent.gfn == last) return std::nullopt;
    return grant_for(sent);
  };
  start(2'000'000);
  for (unsigned i = 0; i < kMore; ++i) write(managed_by_peer(i));
  const auto forward = [](Gfn gfn) {
    ivy::Message message = from_peer(ivy::Kind::kWriteForward, gfn);
    message.version = 1;
    message.txn = 77;
    return message;
  };
  for (unsigned i = 0; i < kMore; ++i) transport_.say(forward(managed_by_peer(i)));

  std::thread writer([&] { write(last); });
  ivy::Message request, grant;
  const auto about_last = [last](const ivy::Message& each) { return each.gfn == last; };
  ASSERT_TRUE(transport_.heard(ivy::Kind::kWriteRequest, request, about_last));
  transport_.say(forward(last));
  transport_.say(grant_for(request));
  writer.join();
  EXPECT_TRUE(transport_.heard(ivy::Kind::kGrant, grant, about_last)) << "the forward is lost";
}

}  // namespace
}  // namespace xenspan::dsm::test
