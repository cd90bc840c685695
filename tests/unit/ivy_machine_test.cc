// One role at a time: what the machine answers to each message in each state, and what it refuses.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/ivy/page_state.h"

namespace xenspan::dsm::ivy {
namespace {

using StepKind = Step::Kind;
constexpr Gfn kGfn = 42;
constexpr HostId kHome = 0, kManager = 1, kReader = 2, kWriter = 3;

class Machine : public testing::Test {
 protected:
  Verdict deliver(HostId self, const Message& message) {
    steps_.clear();
    const PageState before = page(self);
    const Verdict verdict = on_message(page(self), view(self), message, steps_);
    if (verdict != Verdict::kAccepted) {
      EXPECT_EQ(steps_.size(), 0u);
      EXPECT_EQ(std::memcmp(&before, &page(self), sizeof before), 0)
          << "changed by a refused message";
    }
    return verdict;
  }
  FaultStart fault(HostId self, Right wanted, std::uint32_t txn, bool discard = false) {
    steps_.clear();
    return on_fault(page(self), view(self), kGfn, wanted, discard, kLane, txn, steps_);
  }
  // Delivers everything that follows from the steps in hand, oldest first, until nothing is left.
  void settle() {
    std::vector<Message> mail;
    const auto collect = [&] {
      for (const Step& step : steps_) {
        if (step.kind == StepKind::kSend) mail.push_back(step.message);
      }
    };
    collect();
    for (std::size_t i = 0; i < mail.size(); ++i) {
      const Message message = mail[i];
      ASSERT_EQ(deliver(message.to, message), Verdict::kAccepted);
      collect();
    }
  }
  void give(HostId host, Right right) {
    ASSERT_EQ(fault(host, right, next_txn_++), FaultStart::kStarted);
    settle();
    ASSERT_EQ(right_of(page(host), view(host)), right);
  }
  PageState& page(HostId host) { return pages_[host]; }
  View view(HostId self) const { return {self, home_, kManager}; }
  Right right(HostId host) { return right_of(page(host), view(host)); }
  std::vector<StepKind> kinds() const {
    std::vector<StepKind> list;
    for (const Step& step : steps_) list.push_back(step.kind);
    return list;
  }
  const Message& message(std::size_t index) const { return steps_.begin()[index].message; }
  Message make(Kind kind, HostId from, HostId to, HostId requester, std::uint32_t txn) {
    Message made{.kind = kind, .from = from, .to = to, .requester = requester};
    made.lane = kLane;
    made.txn = txn;
    made.gfn = kGfn;
    return made;
  }
  Message page_grant(HostId from, HostId to, Right right, std::uint32_t txn) {
    Message made = make(Kind::kGrant, from, to, to, txn);
    made.right = right;
    made.payload = Payload::kPage;
    return made;
  }

  static constexpr Lane kLane = 3;
  PageState pages_[4] = {};
  HostId home_ = kHome;
  Steps steps_;
  std::uint32_t next_txn_ = 100;
};

using Kinds = std::vector<StepKind>;

TEST_F(Machine, ZeroIsTheStart) {
  EXPECT_EQ(right(kHome), Right::kExclusive);
  EXPECT_EQ(right(kReader), Right::kInvalid);
  EXPECT_EQ(fault(kHome, Right::kShared, 1), FaultStart::kHeld);
  EXPECT_EQ(kinds(), Kinds{StepKind::kGrantExclusive});
}

TEST_F(Machine, ReadGoesFromManagerToOwnerToRequester) {
  ASSERT_EQ(fault(kReader, Right::kShared, 7), FaultStart::kStarted);
  ASSERT_EQ(kinds(), Kinds{StepKind::kSend});
  EXPECT_EQ(message(0), make(Kind::kReadRequest, kReader, kManager, kReader, 7));
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  EXPECT_EQ(message(0), make(Kind::kReadForward, kManager, kHome, kReader, 7));
  ASSERT_EQ(deliver(kHome, Message(message(0))), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kProtect, StepKind::kSend}));
  const Message grant = message(1);
  EXPECT_EQ(grant, page_grant(kHome, kReader, Right::kShared, 7));
  EXPECT_TRUE(expects_contents(page(kReader), view(kReader), grant));
  ASSERT_EQ(deliver(kReader, grant), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kGrantShared, StepKind::kComplete}));
  EXPECT_EQ(message(1).txn, 7u);
  EXPECT_EQ(page(kManager).hosts(), mask_of(kHome) | mask_of(kReader));
  EXPECT_EQ(page(kManager).owner, kHome);
}

TEST_F(Machine, WriteInvalidatesReadersAndTakesThePageFromTheOwner) {
  give(kReader, Right::kShared);
  ASSERT_EQ(fault(kWriter, Right::kExclusive, 9), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  ASSERT_EQ(steps_.size(), 2u);
  const Message forward = message(0), invalidate = message(1);
  EXPECT_EQ(forward.kind, Kind::kWriteForward);
  EXPECT_EQ(forward.acks, 1);
  EXPECT_EQ(invalidate, make(Kind::kInvalidate, kManager, kReader, kWriter, 9));

  ASSERT_EQ(deliver(kHome, forward), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kWithdraw, StepKind::kSend}));
  const Message grant = message(1);
  ASSERT_EQ(deliver(kReader, invalidate), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kWithdraw, StepKind::kSend}));
  const Message ack = message(1);

  ASSERT_EQ(deliver(kWriter, ack), Verdict::kAccepted);
  EXPECT_EQ(steps_.size(), 0u) << "mapped before the page was there";
  ASSERT_EQ(deliver(kWriter, grant), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kGrantExclusive, StepKind::kComplete}));
  EXPECT_EQ(page(kManager).hosts(), mask_of(kWriter));
  EXPECT_EQ(page(kManager).owner, kWriter);
}

TEST_F(Machine, UpgradeCarriesNoPageAndWaitsForEveryAcknowledgement) {
  give(kReader, Right::kShared);
  give(kWriter, Right::kShared);
  ASSERT_EQ(fault(kReader, Right::kExclusive, 5), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  ASSERT_EQ(steps_.size(), 3u);
  const Message to_home = message(0), to_other = message(1), grant = message(2);
  EXPECT_EQ(to_home.to, kHome);
  EXPECT_EQ(to_other.to, kWriter);
  EXPECT_EQ(grant.kind, Kind::kGrant);
  EXPECT_EQ(grant.payload, Payload::kNone);
  EXPECT_EQ(grant.acks, 2);
  ASSERT_EQ(deliver(kReader, grant), Verdict::kAccepted);
  EXPECT_EQ(steps_.size(), 0u);
  ASSERT_EQ(deliver(kHome, to_home), Verdict::kAccepted);
  ASSERT_EQ(deliver(kReader, Message(message(1))), Verdict::kAccepted);
  EXPECT_EQ(steps_.size(), 0u) << "one acknowledgement is missing";
  ASSERT_EQ(deliver(kWriter, to_other), Verdict::kAccepted);
  ASSERT_EQ(deliver(kReader, Message(message(1))), Verdict::kAccepted);
  EXPECT_EQ(right(kReader), Right::kExclusive);
}

TEST_F(Machine, ManagerThatUpgradesItsOwnCopyCountsItsOwnAcknowledgements) {
  give(kManager, Right::kShared);
  give(kReader, Right::kShared);
  give(kManager, Right::kExclusive);
  EXPECT_EQ(page(kManager).hosts(), mask_of(kManager));
  EXPECT_EQ(right(kReader), Right::kInvalid);
  EXPECT_EQ(right(kHome), Right::kInvalid);
}

// The manager passes a request on while the one before it is under way; the host that will have the
// page keeps it until then.
TEST_F(Machine, AForwardThatIsAheadOfItsGrantIsEarly) {
  ASSERT_EQ(fault(kWriter, Right::kExclusive, 1), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  const Message first = message(0);
  ASSERT_EQ(fault(kReader, Right::kExclusive, 2), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  ASSERT_EQ(steps_.size(), 1u);
  const Message second = message(0);
  EXPECT_EQ(second.kind, Kind::kWriteForward);
  EXPECT_EQ(second.to, kWriter);
  EXPECT_EQ(second.version, first.version + 1);

  EXPECT_EQ(deliver(kWriter, second), Verdict::kEarly);
  ASSERT_EQ(deliver(kHome, first), Verdict::kAccepted);
  ASSERT_EQ(deliver(kWriter, Message(message(1))), Verdict::kAccepted);
  EXPECT_EQ(right(kWriter), Right::kExclusive);
  ASSERT_EQ(deliver(kWriter, second), Verdict::kAccepted);
  settle();
  EXPECT_EQ(right(kWriter), Right::kInvalid);
  EXPECT_EQ(right(kReader), Right::kExclusive);
}

TEST_F(Machine, AnInvalidationThatIsAheadOfTheReadersPageIsEarly) {
  ASSERT_EQ(fault(kReader, Right::kShared, 1), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  const Message read = message(0);
  ASSERT_EQ(fault(kWriter, Right::kExclusive, 2), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  const Message write = message(0), invalidate = message(1);

  EXPECT_EQ(deliver(kReader, invalidate), Verdict::kEarly);
  EXPECT_EQ(deliver(kHome, write), Verdict::kEarly) << "the read forward was sent before";
  ASSERT_EQ(deliver(kHome, read), Verdict::kAccepted);
  ASSERT_EQ(deliver(kReader, Message(message(1))), Verdict::kAccepted);
  EXPECT_EQ(right(kReader), Right::kShared);
  ASSERT_EQ(deliver(kReader, invalidate), Verdict::kAccepted);
  const Message ack = message(1);
  ASSERT_EQ(deliver(kHome, write), Verdict::kAccepted);
  ASSERT_EQ(deliver(kWriter, Message(message(1))), Verdict::kAccepted);
  EXPECT_EQ(right(kWriter), Right::kInvalid) << "the reader's acknowledgement is missing";
  ASSERT_EQ(deliver(kWriter, ack), Verdict::kAccepted);
  EXPECT_EQ(right(kWriter), Right::kExclusive);
}

// What belongs to the time before an upgrade has to be served although the upgrade is under way.
TEST_F(Machine, AnUpgraderServesWhatCameBefore) {
  give(kReader, Right::kShared);
  ASSERT_EQ(fault(kReader, Right::kExclusive, 1), FaultStart::kStarted);
  const Message upgrade = message(0);
  ASSERT_EQ(fault(kWriter, Right::kExclusive, 2), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  const Message write = message(0), invalidate = message(1);
  ASSERT_EQ(deliver(kManager, upgrade), Verdict::kAccepted);
  const Message back = message(0);
  EXPECT_EQ(back.kind, Kind::kWriteForward) << "its copy is gone: no upgrade any more";

  ASSERT_EQ(deliver(kReader, invalidate), Verdict::kAccepted);
  EXPECT_EQ(right(kReader), Right::kInvalid);
  const Message ack = message(1);
  EXPECT_EQ(deliver(kWriter, back), Verdict::kEarly);
  ASSERT_EQ(deliver(kHome, write), Verdict::kAccepted);
  ASSERT_EQ(deliver(kWriter, Message(message(1))), Verdict::kAccepted);
  ASSERT_EQ(deliver(kWriter, ack), Verdict::kAccepted);
  ASSERT_EQ(deliver(kWriter, back), Verdict::kAccepted);
  settle();
  EXPECT_EQ(right(kReader), Right::kExclusive);
}

TEST_F(Machine, VersionsWrapAround) {
  page(kHome).held_version = page(kManager).version = 255;
  give(kWriter, Right::kExclusive);
  EXPECT_EQ(page(kManager).version, 0u);
  EXPECT_EQ(page(kWriter).held_version, 0u);
  give(kReader, Right::kExclusive);
  EXPECT_EQ(right(kWriter), Right::kInvalid);
}

TEST_F(Machine, DiscardTravelsWithoutContentsAndDropsEveryFrame) {
  give(kReader, Right::kShared);
  ASSERT_EQ(fault(kWriter, Right::kExclusive, 4, true), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  const Message forward = message(0), invalidate = message(1);
  ASSERT_EQ(deliver(kHome, forward), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kWithdraw, StepKind::kDropFrame, StepKind::kSend}));
  EXPECT_EQ(message(2).payload, Payload::kZero);
  ASSERT_EQ(deliver(kReader, invalidate), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kWithdraw, StepKind::kDropFrame, StepKind::kSend}));
}

TEST_F(Machine, DiscardOfASharedCopyDropsItBeforeItIsMapped) {
  give(kReader, Right::kShared);
  ASSERT_EQ(fault(kReader, Right::kExclusive, 4, true), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, Message(message(0))), Verdict::kAccepted);
  const Message invalidate = message(0), grant = message(1);
  ASSERT_EQ(deliver(kReader, grant), Verdict::kAccepted);
  ASSERT_EQ(deliver(kHome, invalidate), Verdict::kAccepted);
  ASSERT_EQ(deliver(kReader, Message(message(2))), Verdict::kAccepted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kDropFrame, StepKind::kGrantExclusive, StepKind::kComplete}));
}

TEST_F(Machine, DiscardOfAnExclusivePageNeedsNoMessage) {
  EXPECT_EQ(fault(kHome, Right::kExclusive, 4, true), FaultStart::kStarted);
  EXPECT_EQ(kinds(), (Kinds{StepKind::kDropFrame, StepKind::kGrantExclusive, StepKind::kComplete}));
  EXPECT_EQ(message(2).txn, 4u);
}

TEST_F(Machine, ASecondLocalFaultWaitsButAReaderMayGoOn) {
  give(kReader, Right::kShared);
  ASSERT_EQ(fault(kReader, Right::kExclusive, 5), FaultStart::kStarted);
  EXPECT_EQ(fault(kReader, Right::kExclusive, 6), FaultStart::kPending);
  EXPECT_EQ(steps_.size(), 0u);
  EXPECT_EQ(fault(kReader, Right::kShared, 6), FaultStart::kHeld);
}

TEST_F(Machine, AnswersToOldRequestsAreRepeats) {
  give(kReader, Right::kShared);
  EXPECT_EQ(deliver(kReader, page_grant(kHome, kReader, Right::kShared, 100)), Verdict::kDuplicate);
  EXPECT_EQ(deliver(kReader, make(Kind::kInvalidateAck, kHome, kReader, kReader, 100)),
            Verdict::kDuplicate);
  ASSERT_EQ(fault(kReader, Right::kExclusive, 8), FaultStart::kStarted);
  EXPECT_EQ(deliver(kReader, page_grant(kHome, kReader, Right::kExclusive, 7)),
            Verdict::kDuplicate);
}

TEST_F(Machine, AcknowledgementsMayComeBeforeTheGrantThatSaysHowMany) {
  ASSERT_EQ(fault(kWriter, Right::kExclusive, 8), FaultStart::kStarted);
  const Message ack = make(Kind::kInvalidateAck, kReader, kWriter, kWriter, 8);
  EXPECT_EQ(deliver(kWriter, ack), Verdict::kAccepted);
  Message grant = page_grant(kHome, kWriter, Right::kExclusive, 8);
  grant.acks = 0;
  EXPECT_EQ(deliver(kWriter, grant), Verdict::kIllegal) << "fewer acknowledgements than have come";
  grant.acks = 1;
  EXPECT_EQ(deliver(kWriter, grant), Verdict::kAccepted);
  EXPECT_EQ(right(kWriter), Right::kExclusive);
  EXPECT_EQ(deliver(kWriter, ack), Verdict::kDuplicate);
}

TEST_F(Machine, ContentsAreLetInOnlyWhereTheyAreWanted) {
  const auto expects = [&](HostId host, const Message& grant) {
    return expects_contents(page(host), view(host), grant);
  };
  EXPECT_FALSE(expects(kReader, page_grant(kHome, kReader, Right::kShared, 0))) << "nothing asked";
  ASSERT_EQ(fault(kReader, Right::kShared, 8), FaultStart::kStarted);
  EXPECT_TRUE(expects(kReader, page_grant(kHome, kReader, Right::kShared, 8)));
  EXPECT_FALSE(expects(kReader, page_grant(kHome, kReader, Right::kShared, 9))) << "other request";
  EXPECT_FALSE(expects(kReader, page_grant(kHome, kReader, Right::kExclusive, 8))) << "other right";
  ASSERT_EQ(fault(kWriter, Right::kExclusive, 8, true), FaultStart::kStarted);
  Message unwanted = page_grant(kHome, kWriter, Right::kExclusive, 8);
  unwanted.discard = true;
  EXPECT_FALSE(expects(kWriter, unwanted)) << "a discard wants no contents";
}

TEST_F(Machine, AMappedFrameIsNeverOverwritten) {
  give(kReader, Right::kShared);
  ASSERT_EQ(fault(kReader, Right::kExclusive, 8), FaultStart::kStarted);
  const Message grant = page_grant(kHome, kReader, Right::kExclusive, 8);
  EXPECT_FALSE(expects_contents(page(kReader), view(kReader), grant));
  EXPECT_EQ(deliver(kReader, grant), Verdict::kIllegal);
}

TEST_F(Machine, RefusesWhatNoCorrectPeerSends) {
  EXPECT_EQ(deliver(kReader, make(Kind::kReadRequest, kWriter, kReader, kWriter, 1)),
            Verdict::kIllegal)
      << "not the manager";
  EXPECT_EQ(deliver(kManager, make(Kind::kReadRequest, kWriter, kManager, kReader, 1)),
            Verdict::kIllegal)
      << "in another host's name";
  EXPECT_EQ(deliver(kManager, make(Kind::kReadRequest, kHome, kManager, kHome, 1)),
            Verdict::kIllegal)
      << "the owner asks to read";
  EXPECT_EQ(deliver(kHome, make(Kind::kReadForward, kWriter, kHome, kWriter, 1)), Verdict::kIllegal)
      << "a forward that is not from the manager";
  EXPECT_EQ(deliver(kReader, make(Kind::kWriteForward, kManager, kReader, kWriter, 1)),
            Verdict::kIllegal)
      << "a forward to a host that holds nothing";
  EXPECT_EQ(deliver(kHome, make(Kind::kInvalidate, kManager, kHome, kWriter, 1)), Verdict::kIllegal)
      << "invalidating the only contents";
  EXPECT_EQ(deliver(kReader, make(Kind::kReadForward, kManager, kHome, kWriter, 1)),
            Verdict::kIllegal)
      << "for another host";
  EXPECT_EQ(deliver(kManager, make(Kind::kReadRequest, 64, kManager, 64, 1)), Verdict::kIllegal)
      << "no such host";
  EXPECT_EQ(deliver(kManager, make(static_cast<Kind>(99), kReader, kManager, kReader, 1)),
            Verdict::kIllegal);
}

TEST_F(Machine, AManagerRefusesWhatAHostHasNoReasonToAskFor) {
  ASSERT_EQ(deliver(kManager, make(Kind::kReadRequest, kReader, kManager, kReader, 1)),
            Verdict::kAccepted);
  EXPECT_EQ(deliver(kManager, make(Kind::kReadRequest, kReader, kManager, kReader, 2)),
            Verdict::kIllegal)
      << "its copy is under way";
  ASSERT_EQ(deliver(kManager, make(Kind::kWriteRequest, kReader, kManager, kReader, 3)),
            Verdict::kAccepted);
  EXPECT_EQ(deliver(kManager, make(Kind::kWriteRequest, kReader, kManager, kReader, 4)),
            Verdict::kIllegal)
      << "it has the page alone";
}

TEST_F(Machine, AHolderRefusesMessagesAboutRightsItNeitherHasNorWaitsFor) {
  give(kReader, Right::kShared);
  Message invalidate = make(Kind::kInvalidate, kManager, kReader, kWriter, 1);
  invalidate.version = 5;
  EXPECT_EQ(deliver(kReader, invalidate), Verdict::kIllegal) << "another version";
  invalidate.version = 0;
  invalidate.reads = 1;
  EXPECT_EQ(deliver(kReader, invalidate), Verdict::kEarly) << "after a read forward";
  Message forward = make(Kind::kWriteForward, kManager, kHome, kWriter, 1);
  EXPECT_EQ(deliver(kHome, forward), Verdict::kIllegal) << "forgets the read that was served";
  ASSERT_EQ(fault(kManager, Right::kShared, 9), FaultStart::kStarted);
  EXPECT_EQ(deliver(kManager, make(Kind::kWriteForward, kManager, kManager, kWriter, 1)),
            Verdict::kIllegal)
      << "who asks to read will not be the owner";
}

// A page that nobody has touched is its manager's to give, and whoever asks first is its owner.
TEST_F(Machine, WithoutAHomeTheManagerGivesUntouchedPages) {
  home_ = kNoHost;
  for (HostId host = 0; host < 4; ++host) EXPECT_EQ(right(host), Right::kInvalid);
  ASSERT_EQ(fault(kReader, Right::kShared, 7), FaultStart::kStarted);
  ASSERT_EQ(deliver(kManager, message(0)), Verdict::kAccepted);
  const Message grant = message(0);
  EXPECT_EQ(grant.kind, Kind::kGrant);
  EXPECT_EQ(grant.payload, Payload::kZero);
  EXPECT_EQ(grant.right, Right::kShared);
  EXPECT_EQ(page(kManager).owner, kReader);
  EXPECT_EQ(page(kManager).hosts(), mask_of(kReader));
  // A writer's forward may overtake the grant, also to a reader who has not heard of the home.
  home_ = kHome;
  Message forward = make(Kind::kWriteForward, kManager, kReader, kWriter, 8);
  forward.version = grant.version;
  EXPECT_EQ(deliver(kReader, forward), Verdict::kEarly);
  EXPECT_EQ(deliver(kReader, grant), Verdict::kAccepted);
  EXPECT_EQ(right(kReader), Right::kShared);
  EXPECT_EQ(deliver(kReader, forward), Verdict::kAccepted);
  EXPECT_EQ(right(kReader), Right::kInvalid);
}

TEST_F(Machine, WithoutAHomeTheManagerTakesAnUntouchedPageItself) {
  home_ = kNoHost;
  give(kManager, Right::kShared);
  EXPECT_EQ(page(kManager).owner, kManager);
  give(kReader, Right::kShared);
  give(kManager, Right::kExclusive);
  EXPECT_EQ(right(kReader), Right::kInvalid);
}

TEST_F(Machine, AnUntouchedPageThatIsNotWantedNeedsNoContents) {
  home_ = kNoHost;
  ASSERT_EQ(fault(kManager, Right::kExclusive, 3, true), FaultStart::kStarted);
  settle();
  EXPECT_EQ(right(kManager), Right::kExclusive);
  give(kWriter, Right::kExclusive);
  EXPECT_EQ(right(kManager), Right::kInvalid);
}

// Where there is a home, nobody grants himself anything.
TEST_F(Machine, AHostTakesNoZerosFromItself) {
  ASSERT_EQ(fault(kManager, Right::kExclusive, 3), FaultStart::kStarted);
  Message zeros = make(Kind::kGrant, kManager, kManager, kManager, 3);
  zeros.right = Right::kExclusive;
  zeros.payload = Payload::kZero;
  EXPECT_EQ(deliver(kManager, zeros), Verdict::kIllegal);
}

TEST(Steps, HoldOneEventOfTheLargestDomain) {
  // The last of 64 hosts has a copy of all others' page and writes: 63 invalidations and the grant.
  const View manager{0, 0, 0};
  PageState page{};
  page.directory_set = 1;
  page.set_hosts(~HostMask{0});
  Steps steps;
  Message request{.kind = Kind::kWriteRequest, .from = 63, .to = 0, .requester = 63};
  ASSERT_EQ(on_message(page, manager, request, steps), Verdict::kAccepted);
  ASSERT_EQ(steps.size(), 64u);
  EXPECT_EQ((steps.end() - 1)->message.acks, 63);
}

// A manager of a domain of 1024 hosts, home 0.
class WideManager : public testing::Test {
 protected:
  Verdict ask(Kind kind, HostId host) {
    steps_.clear();
    return on_message(page_, View{0, 0, 0, row_},
                      {.kind = kind, .from = host, .to = 0, .requester = host}, steps_);
  }
  // To whom the messages of this kind go.
  std::vector<HostId> sent(Kind kind) const {
    std::vector<HostId> to;
    for (const Step& step : steps_) {
      if (step.message.kind == kind) to.push_back(step.message.to);
    }
    return to;
  }
  const Message& first() const { return steps_.begin()->message; }

  std::uint64_t row_[WidePageState::kRowWords] = {};
  WidePageState page_{};
  WideSteps steps_;
};

TEST_F(WideManager, KnowsEachHolderExactly) {
  const std::vector<HostId> readers = {1, 63, 64, 65, 511, 512, 1022, 1023};
  for (HostId host : readers) {
    ASSERT_EQ(ask(Kind::kReadRequest, host), Verdict::kAccepted);
    EXPECT_EQ(ask(Kind::kReadRequest, host), Verdict::kIllegal) << "it has a copy";
  }
  ASSERT_EQ(ask(Kind::kWriteRequest, 700), Verdict::kAccepted);
  EXPECT_EQ(sent(Kind::kInvalidate), readers) << "and nobody else, the owner gets the forward";
  EXPECT_EQ(first().kind, Kind::kWriteForward);
  EXPECT_EQ(first().acks, readers.size());
  EXPECT_EQ(first().reads, readers.size());
  EXPECT_EQ(page_.owner, 700u);
  ASSERT_EQ(ask(Kind::kWriteRequest, 64), Verdict::kAccepted);
  EXPECT_EQ(sent(Kind::kWriteForward), std::vector<HostId>{700}) << "its copy has gone";
  EXPECT_EQ(steps_.size(), 1u);
}

TEST_F(WideManager, UpgradesTheLastOf1024Readers) {
  for (unsigned host = 1; host < 1024; ++host) {
    ASSERT_EQ(ask(Kind::kReadRequest, static_cast<HostId>(host)), Verdict::kAccepted);
  }
  ASSERT_EQ(ask(Kind::kWriteRequest, 1023), Verdict::kAccepted);
  ASSERT_EQ(steps_.size(), 1024u);
  EXPECT_EQ((steps_.end() - 1)->message.kind, Kind::kGrant);
  EXPECT_EQ((steps_.end() - 1)->message.acks, 1023);
  EXPECT_EQ(first().reads, 1023) << "to the owner";
  EXPECT_EQ(ask(Kind::kWriteRequest, 1023), Verdict::kIllegal) << "it has the page alone";
  EXPECT_EQ(ask(Kind::kReadRequest, 1024), Verdict::kIllegal) << "no such host";
}

}  // namespace
}  // namespace xenspan::dsm::ivy
