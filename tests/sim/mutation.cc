#include "tests/sim/mutation.h"

#include <algorithm>
#include <vector>

namespace xenspan::dsm::sim {
namespace {

using ivy::Kind;
using ivy::Step;

bool sends(const Step& step, Kind kind) {
  return step.kind == Step::Kind::kSend && step.message.kind == kind;
}

bool is(const ivy::Message* cause, Kind kind) { return cause != nullptr && cause->kind == kind; }

bool remove_first(std::vector<Step>& steps, Step::Kind kind) {
  const auto found =
      std::find_if(steps.begin(), steps.end(), [&](const Step& step) { return step.kind == kind; });
  if (found == steps.end()) return false;
  steps.erase(found);
  return true;
}

bool move_to_end(std::vector<Step>& steps, Step::Kind kind) {
  const auto found =
      std::find_if(steps.begin(), steps.end(), [&](const Step& step) { return step.kind == kind; });
  if (found == steps.end()) return false;
  std::rotate(found, found + 1, steps.end());
  return true;
}

bool drop_invalidation(std::vector<Step>& steps) {
  const auto found = std::find_if(steps.begin(), steps.end(),
                                  [](const Step& step) { return sends(step, Kind::kInvalidate); });
  if (found == steps.end()) return false;
  steps.erase(found);
  for (Step& step : steps) {
    if (sends(step, Kind::kWriteForward) || sends(step, Kind::kGrant)) --step.message.acks;
  }
  return true;
}

bool forget_acks(std::vector<Step>& steps) {
  bool changed = false;
  for (Step& step : steps) {
    if (!sends(step, Kind::kGrant) || step.message.acks == 0) continue;
    step.message.acks = 0;
    changed = true;
  }
  return changed;
}

bool forget_reads(std::vector<Step>& steps) {
  bool changed = false;
  for (Step& step : steps) {
    if (step.message.reads == 0) continue;
    step.message.reads = 0;
    changed = true;
  }
  return changed;
}

bool let_owner_go(std::vector<Step>& steps) {
  for (Step& step : steps) {
    if (!sends(step, Kind::kReleased) || step.message.right != Right::kShared) continue;
    step.message.right = Right::kInvalid;
    return true;
  }
  return false;
}

bool alter(Mutation mutation, const ivy::Message* cause, std::vector<Step>& steps) {
  switch (mutation) {
    case Mutation::kDropInvalidation: return drop_invalidation(steps);
    case Mutation::kAckBeforeWithdraw:
      return is(cause, Kind::kInvalidate) && move_to_end(steps, Step::Kind::kWithdraw);
    case Mutation::kPageBeforeWithdraw:
      return is(cause, Kind::kWriteForward) && move_to_end(steps, Step::Kind::kWithdraw);
    case Mutation::kGrantBeforeAcks: return forget_acks(steps);
    case Mutation::kReadsNotCounted: return forget_reads(steps);
    case Mutation::kOwnerStaysWritable: return remove_first(steps, Step::Kind::kProtect);
    case Mutation::kOwnerStaysMapped:
      return is(cause, Kind::kWriteForward) && remove_first(steps, Step::Kind::kWithdraw);
    case Mutation::kDiscardKeepsContents:
      return (is(cause, Kind::kGrant) || is(cause, Kind::kInvalidateAck)) &&
             remove_first(steps, Step::Kind::kDropFrame);
    case Mutation::kCopyKept:
      return cause == nullptr && !steps.empty() && sends(steps.back(), Kind::kRelease) &&
             remove_first(steps, Step::Kind::kWithdraw);
    case Mutation::kOwnerReleased: return let_owner_go(steps);
    default: return false;
  }
}

}  // namespace

const char* name_of(Mutation mutation) {
  switch (mutation) {
    case Mutation::kNone: return "none";
    case Mutation::kDropInvalidation: return "drop-invalidation";
    case Mutation::kReaderForgotten: return "reader-forgotten";
    case Mutation::kAckBeforeWithdraw: return "ack-before-withdraw";
    case Mutation::kPageBeforeWithdraw: return "page-before-withdraw";
    case Mutation::kGrantBeforeAcks: return "grant-before-acks";
    case Mutation::kVersionStandsStill: return "version-stands-still";
    case Mutation::kReadsNotCounted: return "reads-not-counted";
    case Mutation::kOwnerStaysWritable: return "owner-stays-writable";
    case Mutation::kOwnerStaysMapped: return "owner-stays-mapped";
    case Mutation::kDiscardKeepsContents: return "discard-keeps-contents";
    case Mutation::kOldHolderStays: return "old-holder-stays";
    case Mutation::kLostGrant: return "lost-grant";
    case Mutation::kLostAck: return "lost-ack";
    case Mutation::kLostForward: return "lost-forward";
    case Mutation::kRowWithoutCopyset: return "row-without-copyset";
    case Mutation::kRowWithoutReads: return "row-without-reads";
    case Mutation::kRowNotSent: return "row-not-sent";
    case Mutation::kServedBeforeRows: return "served-before-rows";
    case Mutation::kCopyKept: return "copy-kept";
    case Mutation::kOwnerReleased: return "owner-released";
    case Mutation::kLeavesUnsettled: return "leaves-unsettled";
    case Mutation::kHomeUnsettled: return "home-unsettled";
    case Mutation::kHomeForgottenSoon: return "home-forgotten-soon";
    case Mutation::kClaimForgotten: return "claim-forgotten";
    case Mutation::kRowKept: return "row-kept";
    case Mutation::kNotQuiet: return "not-quiet";
    case Mutation::kLateAccepted: return "late-accepted";
    case Mutation::kAwardedBesides: return "awarded-besides";
    case Mutation::kContentsForgotten: return "contents-forgotten";
    case Mutation::kGoneForgotten: return "gone-forgotten";
    case Mutation::kRequestKept: return "request-kept";
  }
  return "?";
}

bool alter_steps(Mutation mutation, const ivy::Message* cause, ivy::Steps& steps) {
  std::vector<Step> list(steps.begin(), steps.end());
  if (!alter(mutation, cause, list)) return false;
  steps.clear();
  for (const Step& step : list) steps.push(step.kind, step.message);
  return true;
}

bool alter_page(Mutation mutation, const ivy::Message* cause, bool wide, SimPage& page,
                SimPage::Row& row) {
  switch (mutation) {
    case Mutation::kReaderForgotten:
      if (!is(cause, Kind::kReadRequest)) return false;
      page.list(wide, row, cause->requester, false);
      return true;
    case Mutation::kVersionStandsStill:
      return is(cause, Kind::kWriteRequest) && page.with(wide, [](auto& state) {
        if (state.version == 0) return false;
        state.version = state.version - 1u;
        return true;
      });
    case Mutation::kReadsNotCounted:
      if (!is(cause, Kind::kReadForward)) return false;
      page.with(wide, [](auto& state) { state.reads_served = 0; });
      return true;
    case Mutation::kOldHolderStays:
      if (!is(cause, Kind::kWriteRequest) || cause->requester == 0) return false;
      page.list(wide, row, 0, true);
      return true;
    default: return false;
  }
}

bool loses(Mutation mutation, const ivy::Message& message) {
  return (mutation == Mutation::kLostGrant && message.kind == Kind::kGrant) ||
         (mutation == Mutation::kLostAck && message.kind == Kind::kInvalidateAck) ||
         (mutation == Mutation::kLostForward && message.from != message.requester &&
          (message.kind == Kind::kReadRequest || message.kind == Kind::kWriteRequest));
}

}  // namespace xenspan::dsm::sim
