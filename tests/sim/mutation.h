// Deliberate errors, put between the real machine and the model that carries out its steps.
//
// The machine itself is never changed and has no hook: a mutation alters the Steps an event
// returned, a directory entry afterwards, or loses a message. A checker that does not find them is
// worthless (mutation_test.cc).
#pragma once

#include "dsm-rdma/ivy/machine.h"
#include "tests/sim/sim_page.h"

namespace xenspan::dsm::sim {

enum class Mutation {
  kNone,
  kDropInvalidation,    // the manager forgets one holder: no kInvalidate, one acknowledgement fewer
  kReaderForgotten,     // the manager does not enter a reader into the copyset
  kAckBeforeWithdraw,   // a holder acknowledges while its guest can still read
  kPageBeforeWithdraw,  // an owner sends the page while its guest can still write
  kGrantBeforeAcks,     // the requester maps without waiting for the acknowledgements
  kVersionStandsStill,  // the manager gives a write the version of the one before
  kReadsNotCounted,     // nobody counts reads: a write forward may overtake a read forward
  kOwnerStaysWritable,  // a read grant leaves the owner's mapping writable
  kOwnerStaysMapped,    // a write grant leaves the old owner's mapping as it was
  kDiscardKeepsContents,  // an upgrade with discard keeps the old contents
  kOldHolderStays,        // a write leaves a host in the copyset that has no copy any more
  kLostGrant,             // a grant is lost
  kLostAck,               // an acknowledgement is lost
  // Of hosts that come and go.
  kLostForward,        // an old manager does not pass on what comes to it
  kRowWithoutCopyset,  // a row is handed over as if nobody had a copy but the owner
  kRowWithoutReads,    // a row is handed over as if nobody had read
  kRowNotSent,         // a row is forgotten, and not counted
  kServedBeforeRows,   // a new manager does not wait for the rows
  kCopyKept,           // a host that drains releases a copy that its guest can still read
  kOwnerReleased,      // an owner is let go, and the contents with it
  kLeavesUnsettled,    // a host is switched off as soon as it has drained
  // Of a home that leaves.
  kHomeUnsettled,      // it gives up what nobody has touched while others may still ask it for that
  kHomeForgottenSoon,  // the others give that away before the home has drained
  // Of the directory that is built anew after a death.
  kClaimForgotten,     // a reader does not claim its copy
  kRowKept,            // a manager keeps what it knew
  kNotQuiet,           // claims are made although messages are under way
  kLateAccepted,       // what the dead host had sent is accepted afterwards
  kAwardedBesides,     // a request that was nearly over is over, although others have copies
  kContentsForgotten,  // contents of a request that is nearly over are not claimed
  kGoneForgotten,      // the home does not say what it has given away
  kRequestKept,        // a request is waited for that nobody knows any more
};
inline constexpr Mutation kMutations[] = {
    Mutation::kDropInvalidation,  Mutation::kReaderForgotten,
    Mutation::kAckBeforeWithdraw, Mutation::kPageBeforeWithdraw,
    Mutation::kGrantBeforeAcks,   Mutation::kVersionStandsStill,
    Mutation::kReadsNotCounted,   Mutation::kOwnerStaysWritable,
    Mutation::kOwnerStaysMapped,  Mutation::kDiscardKeepsContents,
    Mutation::kOldHolderStays,    Mutation::kLostGrant,
    Mutation::kLostAck,
};

inline constexpr Mutation kMemberMutations[] = {
    Mutation::kLostForward,   Mutation::kRowWithoutCopyset, Mutation::kRowWithoutReads,
    Mutation::kRowNotSent,    Mutation::kServedBeforeRows,  Mutation::kCopyKept,
    Mutation::kOwnerReleased, Mutation::kLeavesUnsettled,
};

inline constexpr Mutation kHomeMutations[] = {
    Mutation::kHomeUnsettled,
    Mutation::kHomeForgottenSoon,
};

inline constexpr Mutation kRebuildMutations[] = {
    Mutation::kClaimForgotten, Mutation::kRowKept,        Mutation::kNotQuiet,
    Mutation::kLateAccepted,   Mutation::kAwardedBesides, Mutation::kContentsForgotten,
    Mutation::kGoneForgotten,  Mutation::kRequestKept,
};

const char* name_of(Mutation mutation);

// What one mutation does to what one event returned. `cause` is the message that came in, nullptr
// for a local fault. Returns whether it changed anything.
bool alter_steps(Mutation mutation, const ivy::Message* cause, ivy::Steps& steps);
// What it does to the page after the event.
bool alter_page(Mutation mutation, const ivy::Message* cause, bool wide, SimPage& page,
                SimPage::Row& row);
// Whether the network loses this message.
bool loses(Mutation mutation, const ivy::Message& message);

}  // namespace xenspan::dsm::sim
