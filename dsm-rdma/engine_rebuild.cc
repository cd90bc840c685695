// Another host has died, and this one goes on (survival.h): each step walks over all pages that any
// host has touched.
#include <fmt/format.h>

#include <cerrno>
#include <ctime>
#include <mutex>

#include "dsm-rdma/engine_window.h"
#include "dsm-rdma/ivy/rebuild.h"

namespace xenspan::dsm {

// Under each page's lock; what the calls put into the outbox is sent at the end.
template <typename Call>
Status EngineCore::each_page(Stage stage, Call call) {
  if (stage_.load() != stage) return Error{EINVAL, "a step out of order after the loss of a host"};
  Outbox outbox;
  const Gfn pages = table_.pages();
  for (Gfn gfn = table_.next_active(0, pages); gfn < pages && !ended();
       gfn = table_.next_active(gfn + 1, pages)) {
    PageEntry& entry = table_[gfn];
    const std::lock_guard guard(entry);
    call(entry, gfn, outbox);
  }
  if (!outbox.empty()) send_all(outbox);
  return ended() ? stopped_error() : Status();
}

// Whoever has begun with a page before is through with it when this returns: he held its lock. One
// who comes later sees the stage under it. (A page becomes active before the stage is looked at.)
Status EngineCore::freeze(HostMask lost) {
  if (!survives() || without(Feature::kParallel) || (lost & ~members()) != 0 ||
      home_.load() == kNoHost || (lost & (mask_of(config_.self) | mask_of(home_.load()))) != 0) {
    return Error{EINVAL,
                 fmt::format("host {} cannot go on without these hosts", name_of(config_.self))};
  }
  lost_.fetch_or(lost);
  stage_.store(Stage::kFrozen);
  for (unsigned host = 0; host < kMaxHosts; ++host) {
    if ((lost >> host & 1) != 0) transport_.remove_peer(static_cast<HostId>(host));
  }
  // The service thread, which handles what is about slots.
  for (const std::uint64_t seen = rounds_.load(); rounds_.load() < seen + 2;) {
    if (ended()) return stopped_error();
    transport_.nudge();
    const timespec a_little{0, 200'000};
    ::nanosleep(&a_little, nullptr);
  }
  return each_page(Stage::kFrozen, [](PageEntry&, Gfn, Outbox&) {});
}

PeerTraffic EngineCore::peer_traffic() {
  PeerTraffic traffic;
  for (unsigned host = 0; host < kMaxHosts; ++host) {
    traffic.sent[host] = sent_[host].get();
    traffic.received[host] = received_[host].get();
  }
  traffic.idle = !held_.holds_message();
  for (unsigned slot = 0; slot < SlotTable::kSlots && traffic.idle; ++slot)
    traffic.idle = slots_.of_slot(slot).phase != ivy::SlotState::Phase::kGoing;
  return traffic;
}

Status EngineCore::forget(const SlotTable& table, Epoch epoch) {
  for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
    if (is_lost(table.manager_of_slot(slot)))
      return Error{EINVAL, "a host that is lost cannot manage pages"};
  }
  Status done = each_page(Stage::kFrozen, [this](PageEntry& entry, Gfn gfn, Outbox&) {
    ivy::forget_row(entry.state);
    if (!entry.parked()) return;
    ivy::Message never;
    while (parked_.pop(gfn, never)) {
    }
    entry.set_parked(false);
  });
  if (!done) return done;
  slots_.become(table);
  transport_.enter_epoch(epoch);
  releases_.store(0);
  stage_.store(Stage::kForgot);
  return {};
}

Status EngineCore::claim() {
  return each_page(Stage::kForgot, [this](PageEntry& entry, Gfn gfn, Outbox& outbox) {
    ivy::Message claim;
    const ivy::View now = view(gfn);
    if (!ivy::make_claim(entry.state, now, gfn, claim)) return;
    if (now.manager != config_.self) return post(claim, outbox);
    if (ivy::on_claim(entry.state, now, claim) != ivy::Verdict::kAccepted)
      stop(fmt::format("two hosts claim page {} after the loss of a third", gfn));
  });
}

// In the service thread. An award names its heir, who is not the sender.
bool EngineCore::take_in_claim(const ivy::Message& row, Outbox& outbox) noexcept {
  PageEntry& entry = table_[row.gfn];
  const std::lock_guard guard(entry);
  table_.activate(row.gfn);
  if (row.requester != row.from) return take_award(row, outbox);
  return ivy::on_claim(entry.state, view(row.gfn), row) == ivy::Verdict::kAccepted;
}

// With the page's lock held.
bool EngineCore::take_award(const ivy::Message& award, Outbox& outbox) noexcept {
  PageEntry& entry = table_[award.gfn];
  ivy::Steps steps;
  const std::uint32_t txn = requests_.find(entry.state.txn, award.gfn);
  if (ivy::on_award(entry.state, view(award.gfn), award, txn, steps) != ivy::Verdict::kAccepted)
    return false;
  Event event(outbox);
  return carry_out(entry, steps, event);
}

Result<std::vector<PageRun>> EngineCore::judge() {
  std::vector<PageRun> lost;
  const Status done =
      each_page(Stage::kForgot, [this, &lost](PageEntry& entry, Gfn gfn, Outbox& outbox) {
        const ivy::View now = view(gfn);
        if (now.manager != config_.self) return;
        ivy::Message award;
        switch (ivy::judge_claims(entry.state, now, gfn, award)) {
          case ivy::Judged::kKnown: return;
          case ivy::Judged::kLost: return add_page(lost, gfn);
          case ivy::Judged::kAwarded: break;
        }
        if (award.to != config_.self) return post(award, outbox);
        if (!take_award(award, outbox))
          stop(fmt::format("page {} cannot be kept after the loss of a host", gfn));
      });
  if (!done) return done.error();
  return lost;
}

// The waiting threads see by `rebuilt_` that they have got nothing.
Status EngineCore::abandon() {
  rebuilt_.fetch_add(1);
  return each_page(Stage::kForgot, [this](PageEntry& entry, Gfn gfn, Outbox&) {
    const std::uint32_t txn = requests_.find(entry.state.txn, gfn);
    if (!ivy::abandon(entry.state) || txn == 0) return;
    if (const Lane lane = requests_.complete(txn); lane != kServiceLane) transport_.wake(lane);
  });
}

Status EngineCore::thaw() {
  if (stage_.load() != Stage::kForgot)
    return Error{EINVAL, "a step out of order after the loss of a host"};
  members_.fetch_and(~lost_.load());
  stage_.store(Stage::kRuns);
  requests_.ring_all();
  return {};
}

}  // namespace xenspan::dsm
