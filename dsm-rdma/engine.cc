#include "dsm-rdma/engine.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "dsm-rdma/engine_window.h"

namespace xenspan::dsm {

Result<std::unique_ptr<Engine>> Engine::create(const EngineConfig& config, PageBackend& backend,
                                               Transport& transport,
                                               std::function<void(const std::string&)> on_stop) {
  const unsigned most = config.most_hosts != 0 ? config.most_hosts : config.hosts;
  if (config.hosts == 0 || config.hosts > most || most > kMaxHosts || config.self >= most ||
      (config.home >= most && config.home != kNoHost)) {
    return Error{EINVAL, fmt::format("host {} of {} with home {}: a domain has 1 to {} hosts",
                                     config.self, most, config.home, kMaxHosts)};
  }
  auto engine = std::make_unique<EngineCore>(config, backend, transport, std::move(on_stop));
  if (Status status = engine->prepare(); !status) return status.error();
  return std::unique_ptr<Engine>(std::move(engine));
}

EngineCore::EngineCore(const EngineConfig& config, PageBackend& backend, Transport& transport,
                       std::function<void(const std::string&)> on_stop)
    : config_(config),
      backend_(backend),
      transport_(transport),
      on_stop_(std::move(on_stop)),
      slots_(config.hosts),
      members_((config.members != 0 ? config.members : ~HostMask{0} >> (64 - config.hosts)) |
               mask_of(config.self)),
      home_(config.home),
      parked_(most_hosts() * Requests::kPlaces),  // every place of every host: it cannot run out
      requests_(transport_.most_ahead()),
      held_(config.without.has(Feature::kHold) ? 0 : config.hold_us, config.least_hold_us),
      predictor_(config.without.has(Feature::kPrefetch) ? 0 : config.prefetch,
                 transport_.most_ahead()),
      names_(config.names) {}

Status EngineCore::prepare() {
  if (without(Feature::kParallel)) one_by_one_ = std::make_unique<OneByOne>();
  if (Status status = table_.create(config_.pages); !status) return status;
  if (Status status = sharing_.create(); !status) return status;
  if (const int error = transport_.register_frames(backend_.frame(0), config_.pages * kPageSize)) {
    return system_error(error, "cannot register the domain's memory with the transport");
  }
  return {};
}

bool EngineCore::in_range(Gfn first, std::uint64_t count) noexcept {
  if (first < table_.pages() && count <= table_.pages() - first) return true;
  stop(fmt::format("pages {} to {} are outside the domain's memory ({} pages)", first,
                   first + count, table_.pages()));
  return false;
}

Outcome EngineCore::acquire(Gfn gfn, Right wanted, Touch touch) noexcept {
  if (!in_range(gfn, 1)) return Outcome::kStopped;
  const std::uint64_t start = now_ns();
  const Right touched_to = wanted;
  wanted = to_ask_for(gfn, wanted, touch);
  std::uint32_t rebuilt = rebuilt_.load();
  Window window(*this);
  for (;;) {
    unsigned place = window.place();
    const Beginning begun = begin(gfn, {wanted, Purpose::kFault}, window, place);
    switch (begun.begun) {
      case Begun::kHeld:
        if (begun.remap) {
          counters_.remaps.add();
          ask_ahead(gfn, window);
        } else {
          counters_.fault(begun.kind, now_ns() - start);
        }
        return Outcome::kGranted;
      case Begun::kStarted: {
        window.started(place);
        if (!predictor_.likely(::pthread_self())) window.flush();
        held_.wanted(gfn, touched_to, start);
        if (begun.fresh) window.prepare_later(gfn);
        ask_early(gfn, touched_to, touch, window);
        ask_ahead(gfn, window);
        const Outcome outcome = window.wait_all();
        // What was asked for has been forgotten with a host that died.
        if (outcome == Outcome::kGranted && rebuilt_.load() != rebuilt) {
          rebuilt = rebuilt_.load();
          break;
        }
        const std::uint64_t end = now_ns();
        predictor_.on_served(::pthread_self(), end);
        note_fault(begun.kind, gfn, touch, place, start, end);
        if (outcome != Outcome::kGranted) return outcome;
        counters_.fault(begun.kind, end - start);
        sharing_.note(touch, gfn, wanted == Right::kExclusive, requests_.giver(place));
        return outcome;
      }
      case Begun::kPending:
        ask_ahead(gfn, window);
        window.flush();
        requests_.bell(gfn).wait_while(begun.seen, Requests::kSpinNs);
        break;
      case Begun::kNeedPlace:
        if (!window.make_room()) return Outcome::kStopped;
        break;
      case Begun::kFailed: return Outcome::kStopped;
    }
  }
}

namespace {

FaultKind kind_of(Right held, Right wanted) {
  if (held == Right::kExclusive) return FaultKind::kFirstTouch;
  if (wanted == Right::kShared) return FaultKind::kRead;
  return held == Right::kShared ? FaultKind::kUpgrade : FaultKind::kWrite;
}

}  // namespace

EngineCore::Beginning EngineCore::begin(Gfn gfn, Wish wish, Window& window,
                                        unsigned& place) noexcept {
  if (ended()) return {Begun::kFailed, {}, 0, gfn, false, false};
  PageEntry& entry = table_[gfn];
  const std::lock_guard guard(entry);
  const Right held = ivy::right_of(entry.state, view(gfn));
  Beginning result{Begun::kHeld, kind_of(held, wish.wanted), 0, gfn + 1, false, false};
  if (held == Right::kExclusive && !entry.touched()) {
    // Fresh: unmapped, and zero.
    if (wish.discard()) return result;
    entry.count_fault();
    result.next = map_fresh(entry, gfn);
    if (result.next == gfn) result.begun = Begun::kFailed;
    return result;
  }
  if (wish.discard() && held == Right::kExclusive) {
    if (!drop(entry, gfn, false)) result.begun = Begun::kFailed;
    return result;
  }
  const bool asks = wish.discard() || held < wish.wanted;
  if (place == kNoPlace && asks) place = window.first_place();
  if (place == kNoPlace && asks) {
    result.begun = Begun::kNeedPlace;
    return result;
  }
  table_.activate(gfn);
  result.seen = requests_.bell(gfn).value();
  // Once more: the bell that stop() rang may be the one just seen, and nobody rings after it.
  if (ended()) return {Begun::kFailed, {}, 0, gfn, false, false};
  result.fresh = !entry.touched() && !wish.discard();
  result.begun = begin_request(entry, gfn, wish, window, place);
  result.remap = result.begun == Begun::kHeld;
  if (result.remap && predictor_.on_touched(gfn)) counters_.prefetch_used.add();
  if (result.remap) returning_.on_touched(gfn, wish.wanted);
  if (result.begun == Begun::kStarted) entry.count_fault();
  return result;
}

EngineCore::Begun EngineCore::begin_request(PageEntry& entry, Gfn gfn, Wish wish, Window& window,
                                            unsigned place) noexcept {
  const std::uint32_t txn = place != kNoPlace ? requests_.arm(place, wish.purpose, gfn) : 0;
  ivy::Steps steps;
  Event event(window.outbox());
  const ivy::FaultStart start = ivy::on_fault(entry.state, view(gfn), gfn, wish.wanted,
                                              wish.discard(), window.lane(), txn, steps);
  if (start != ivy::FaultStart::kStarted && place != kNoPlace) requests_.disarm(place);
  if (start == ivy::FaultStart::kPending) return Begun::kPending;
  if (!carry_out(entry, steps, event) || !feed_all(entry, event, steps, true))
    return Begun::kFailed;
  return start == ivy::FaultStart::kHeld ? Begun::kHeld : Begun::kStarted;
}

// Has the kernel allocate the frame's memory while the answer is on its way, instead of when it
// arrives. Where frames are mapped and unmapped, this page's must not go meanwhile.
void EngineCore::prepare_frame(Gfn gfn) noexcept {
  std::unique_lock guard(table_[gfn], std::defer_lock);
  if (!backend_.frames_keep_still()) guard.lock();
  if (std::byte* frame = backend_.frame(gfn))
    __atomic_fetch_or(reinterpret_cast<unsigned char*>(frame), 0, __ATOMIC_RELAXED);
}

// A page of this kind can join its neighbour's first touch. Its lock is then held.
bool EngineCore::take_fresh(Gfn gfn) noexcept {
  PageEntry& entry = table_[gfn];
  if (!entry.try_lock()) return false;
  if (!entry.touched() && ivy::right_of(entry.state, view(gfn)) == Right::kExclusive) return true;
  entry.unlock();
  return false;
}

// Maps a fresh page, and fresh neighbours with it. The first page after them; `gfn` when the
// backend failed.
Gfn EngineCore::map_fresh(PageEntry& entry, Gfn gfn) noexcept {
  const PageBackend::Run around = backend_.fault_around(gfn);
  const Gfn limit = std::min<Gfn>(around.first + around.count, table_.pages());
  Gfn first = gfn, end = gfn + 1;
  while (first > around.first && take_fresh(first - 1)) --first;
  while (end < limit && take_fresh(end)) ++end;
  const int error =
      backend_.grant(first, static_cast<std::uint32_t>(end - first), Right::kExclusive);
  for (Gfn page = first; page < end; ++page) {
    table_.activate(page);
    table_[page].set_touched();
    if (page != gfn) table_[page].unlock();
  }
  if (error == 0) return end;
  entry.set_touched();
  backend_failed(error, "be mapped", gfn);
  return gfn;
}

Right EngineCore::right(Gfn gfn) const noexcept {
  if (gfn >= table_.pages()) return Right::kInvalid;
  const std::lock_guard guard(table_[gfn]);
  return ivy::right_of(table_[gfn].state, view(gfn));
}

void EngineCore::serve() {
  server_.store(::pthread_self());
  Inbox inbox(*this);
  transport_.serve(inbox, [&] { return serve_held(inbox); });
}

std::string EngineCore::name_of(HostId host) const {
  const std::lock_guard guard(names_lock_);
  return host < names_.size() && !names_[host].empty() ? names_[host] : std::to_string(host);
}

void EngineCore::peer_lost(HostId peer, const char* why) noexcept {
  if (drained_ || (members() & mask_of(peer)) == 0) return;
  if (survives()) return config_.on_peer_lost(peer, why);
  stop(fmt::format("host {} is lost: {}", name_of(peer), why));
}

bool EngineCore::backend_failed(int error, const char* what, Gfn gfn) noexcept {
  stop(fmt::format("page {} cannot {} on host {}: {}", gfn, what, name_of(config_.self),
                   std::strerror(error)));
  return false;
}

void EngineCore::stop(const std::string& cause) noexcept {
  {
    const std::lock_guard guard(cause_lock_);
    if (!cause_.empty()) return;
    cause_ = cause.empty() ? "stopped" : cause;
  }
  requests_.end();
  transport_.stop();
  if (on_stop_) on_stop_(cause);
}

std::string EngineCore::stop_cause() const {
  const std::lock_guard guard(cause_lock_);
  return cause_;
}

EngineStats EngineCore::stats(std::size_t hottest) const {
  EngineStats out;
  for (std::size_t kind = 0; kind < Counters::kKinds; ++kind) {
    out.faults[kind] = counters_.faults[kind].get();
    for (std::size_t i = 0; i < Counters::kBuckets; ++i) {
      out.latency[kind].buckets[i] = counters_.latency[kind][i].get();
    }
  }
  out.served_reads = counters_.served_reads.get();
  out.served_writes = counters_.served_writes.get();
  out.invalidations = counters_.invalidations.get();
  out.zero_grants = counters_.zero_grants.get();
  out.held_back = counters_.held_back.get();
  out.remaps = counters_.remaps.get();
  out.prefetched = counters_.prefetched.get();
  out.prefetch_sampled = counters_.prefetch_sampled.get();
  out.prefetch_used = counters_.prefetch_used.get();
  out.batches = counters_.batches.get();
  out.migratory = counters_.migratory.get();
  out.traffic = transport_.traffic();
  out.table_bytes = table_.active_bytes();
  out.engine_bytes = sizeof *this + parked_.bytes() + sharing_.bytes();
  // A heap of the hottest so far, the coolest on top.
  const auto hotter = [](const EngineStats::HotPage& a, const EngineStats::HotPage& b) {
    return a.faults != b.faults ? a.faults > b.faults : a.gfn < b.gfn;
  };
  const Gfn pages = table_.pages();
  for (Gfn gfn = table_.next_active(0, pages); gfn < pages;
       gfn = table_.next_active(gfn + 1, pages)) {
    const PageEntry& entry = table_[gfn];
    if (entry.touched()) ++out.pages_touched;
    if (hottest == 0 || entry.faults() == 0) continue;
    const EngineStats::HotPage page{gfn, entry.faults()};
    if (out.hottest.size() == hottest) {
      if (!hotter(page, out.hottest.front())) continue;
      std::pop_heap(out.hottest.begin(), out.hottest.end(), hotter);
      out.hottest.pop_back();
    }
    out.hottest.push_back(page);
    std::push_heap(out.hottest.begin(), out.hottest.end(), hotter);
  }
  std::sort_heap(out.hottest.begin(), out.hottest.end(), hotter);
  return out;
}

}  // namespace xenspan::dsm
