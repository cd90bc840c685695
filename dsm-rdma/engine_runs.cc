// Messages that have come together: where neighbouring pages lose or get the same right, the
// guest's mapping is changed for all of them by one call of the backend, and the machine is told of
// them one by one after that.
//
// What the machine will ask for is found out by asking it about a copy of the page's state. It is
// pure, and the pages' locks are held until it is asked in earnest. Taking a right out of the
// mapping is allowed at any time (the next touch faults and finds it held), so that nothing is lost
// where it then asks for something else after all, because a message is held back.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "dsm-rdma/engine_window.h"

namespace xenspan::dsm {
namespace {

constexpr std::size_t kMostTogether = 64;

// How many of these are about neighbouring pages, in order.
std::size_t neighbours(const Incoming* incoming, std::size_t count) {
  const std::size_t most = std::min(count, kMostTogether);
  std::size_t run = 1;
  while (run < most && incoming[run].message.gfn == incoming->message.gfn + run &&
         !ivy::is_about_members(incoming[run].message.kind))
    ++run;
  return run;
}

}  // namespace

// Pages with the same change can have it together.
struct EngineCore::Change {
  enum class Kind : std::uint8_t {
    kNone,      // nothing, or what is not done in runs
    kProtect,   // the guest may no longer write
    kWithdraw,  // the guest may no longer touch
    kEmpty,     // the same, and nobody wants the contents any more
    kRaise,     // a page it may read can be written
    kMapFresh,  // an empty page is mapped
    kFill,      // contents have come, and are mapped
  } kind = Kind::kNone;
  Right right = Right::kInvalid;
  bool fresh = false;  // kFill: the frame has not been touched
  bool own = false;    // kEmpty: this host discards

  friend bool operator==(const Change&, const Change&) = default;
};

namespace {

bool drops(const ivy::Steps& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const ivy::Step& step) {
    return step.kind == ivy::Step::Kind::kDropFrame;
  });
}

}  // namespace

// With the page's lock held.
EngineCore::Change EngineCore::change_for(PageEntry& entry, const Incoming& incoming) noexcept {
  if (is_late(incoming.message)) return {};
  ivy::PageState copy = entry.state;
  const ivy::View at = view(incoming.message.gfn);
  const Right held = ivy::right_of(copy, at);
  ivy::Message message = incoming.message;
  ivy::Steps steps;
  // A request of which this host is the manager and the owner: its forward is next.
  for (unsigned hop = 0; hop < 2; ++hop) {
    if (hold_until(entry, message) != 0) return {};
    steps.clear();
    if (ivy::on_message(copy, at, message, steps) != ivy::Verdict::kAccepted) return {};
    if (steps.size() == 0) return {};
    const ivy::Step& step =
        *std::find_if(steps.begin(), steps.end() - 1, [this](const ivy::Step& each) {
          return each.kind != ivy::Step::Kind::kSend || each.message.to == config_.self;
        });
    switch (step.kind) {
      case ivy::Step::Kind::kProtect:
        if (!entry.touched()) return {};
        return {Change::Kind::kProtect, Right::kShared, false};
      case ivy::Step::Kind::kWithdraw:
        if (!entry.touched()) return {};
        if (drops(steps)) return {Change::Kind::kEmpty, Right::kInvalid, false, false};
        return {Change::Kind::kWithdraw, Right::kInvalid, false};
      case ivy::Step::Kind::kDropFrame:
        if (!entry.touched()) return {};
        return {Change::Kind::kEmpty, Right::kInvalid, false, true};
      case ivy::Step::Kind::kGrantShared:
      case ivy::Step::Kind::kGrantExclusive: {
        const Right right =
            step.kind == ivy::Step::Kind::kGrantShared ? Right::kShared : Right::kExclusive;
        const Purpose purpose = requests_.purpose(step.message.txn);
        if (purpose == Purpose::kDiscard) {
          if (!entry.touched()) return {};
          return {Change::Kind::kEmpty, Right::kInvalid, false, true};
        }
        if (!maps_early(message.gfn, right, purpose)) return {};
        if (held == Right::kShared) return {Change::Kind::kRaise, right, false};
        if (incoming.page != nullptr) return {Change::Kind::kFill, right, !entry.touched()};
        if (entry.touched()) return {};
        return {Change::Kind::kMapFresh, right, true};
      }
      case ivy::Step::Kind::kSend:
        if (step.message.to != config_.self) return {};
        message = step.message;
        break;
      default: return {};
    }
  }
  return {};
}

// Discarded pages, out of the guest and, if that may be now, empty: they are untouched again.
bool EngineCore::empty_run(Gfn first, std::uint32_t count, bool own, Outbox& outbox) noexcept {
  bool good = true;
  int error = backend_.withdraw_run(first, count);
  if (error == 0 && may_drop(own, outbox, good)) {
    error = backend_.drop_run(first, count);
    if (error == 0)
      for (std::uint32_t i = 0; i < count; ++i) table_[first + i].clear_touched();
  }
  return error == 0 ? good : backend_failed(error, "be given back", first);
}

bool EngineCore::change_run(Gfn first, const Incoming* incoming, const Change& change,
                            std::uint32_t count, Outbox& outbox) noexcept {
  int error = 0;
  switch (change.kind) {
    case Change::Kind::kNone: return true;
    case Change::Kind::kProtect: error = backend_.protect_run(first, count); break;
    case Change::Kind::kWithdraw: error = backend_.withdraw_run(first, count); break;
    case Change::Kind::kEmpty: return empty_run(first, count, change.own, outbox);
    case Change::Kind::kRaise: error = backend_.raise_run(first, count); break;
    case Change::Kind::kMapFresh: error = backend_.grant(first, count, change.right); break;
    case Change::Kind::kFill: {
      const std::byte* contents[kMostTogether];
      for (std::uint32_t i = 0; i < count; ++i) contents[i] = incoming[i].page;
      error = backend_.fill_run(first, count, change.right, contents, change.fresh);
      break;
    }
  }
  if (error != 0) return backend_failed(error, "change its right", first);
  return true;
}

bool EngineCore::deliver_several(const Incoming* incoming, std::size_t count,
                                 Outbox& outbox) noexcept {
  while (count > 0) {
    std::size_t run = without(Feature::kBatching) ? 1 : neighbours(incoming, count);
    if (ivy::is_about_members(incoming->message.kind)) {
      run = 1;
      if (!deliver(incoming->message, outbox)) return false;
    } else if (!deliver_run(incoming, run, outbox)) {
      return false;
    }
    incoming += run;
    count -= run;
  }
  return true;
}

// Messages for `count` neighbouring pages, one for each. Sets `count` to how many were delivered:
// the first, whose lock is waited for, and those behind it whose locks are free.
bool EngineCore::deliver_run(const Incoming* incoming, std::size_t& count,
                             Outbox& outbox) noexcept {
  const Gfn first = incoming->message.gfn;
  if (first >= table_.pages() || count > table_.pages() - first) return false;
  if (ended()) return true;
  table_[first].lock();
  std::size_t locked = 1;
  while (locked < count && table_[first + locked].try_lock()) ++locked;
  count = locked;
  if (count == 1) {
    const std::lock_guard guard(table_[first], std::adopt_lock);
    return deliver_one(table_[first], *incoming, false, outbox);
  }
  std::array<Change, kMostTogether> changes;
  bool good = true;
  for (std::size_t i = 0; i < count; ++i) changes[i] = change_for(table_[first + i], incoming[i]);
  for (std::size_t i = 0, end; i < count && good; i = end) {
    for (end = i + 1; end < count && changes[end] == changes[i];) ++end;
    good = change_run(first + i, incoming + i, changes[i], static_cast<std::uint32_t>(end - i),
                      outbox);
  }
  for (std::size_t i = 0; i < count; ++i) {
    PageEntry& entry = table_[first + i];
    const bool mapped = changes[i].kind != Change::Kind::kNone;
    good = good && deliver_one(entry, incoming[i], mapped, outbox);
    entry.unlock();
  }
  return good;
}

// With the page's lock held. `mapped`: the guest's mapping, and the frame, are as after it already.
bool EngineCore::deliver_one(PageEntry& entry, const Incoming& incoming, bool mapped,
                             Outbox& outbox) noexcept {
  const ivy::Message& message = incoming.message;
  table_.activate(message.gfn);
  if (incoming.page != nullptr && !mapped) {
    if (!awaits(entry, message)) return false;
    entry.set_touched();
    std::byte* const frame = backend_.frame(message.gfn);
    if (frame == nullptr) return backend_failed(ENOMEM, "be received", message.gfn);
    std::memcpy(frame, incoming.page, kPageSize);
  }
  if (message.kind == ivy::Kind::kInvalidateAck && without(Feature::kParallel) &&
      take_turn(entry, message, outbox)) {
    return true;
  }
  return feed(entry, message, true, outbox, mapped);
}

}  // namespace xenspan::dsm
