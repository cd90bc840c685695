// Which pages a thread will ask for next, guessed from the faults it has had, so that one wait
// brings them all.
//
// Four guesses, in this order. Walks: what is left of a run of pages that the thread has gone
// through before (walks.h). Bursts: pages that it has wanted in one go before (bursts.h).
// Successors: a table remembers which fault followed on which, in one thread and within a short
// time; what was seen twice is followed as a chain. It knows bursts that come again, such as the
// boundary rows of a grid: some read, some written. Streams: faults at a constant stride; a run of
// 1, 2, 4 .. pages is asked for as long as the next fault is the one just behind the run. A stream
// that has come to full length runs ahead of its thread: the next run is asked for, with no thread
// waiting for it, when the first page of a run before it is touched. That page, the marker, is held
// and not mapped, so that its touch is seen (after the page flag PG_readahead of Linux,
// mm/readahead.c). Each marker that is touched lets one run more be under way, up to kMostAhead,
// and the next one be longer: what can be asked for in vain grows with what was used before, and a
// long stream keeps both hosts at work at the same time, with few waits and few requests. Pages
// that hosts take from each other again and again (locks, barriers) are left alone; what a thread
// wants behind one of them may come with it (gates.h).
//
// Whether what was asked for early is used cannot be seen in general, so some of it is sampled: the
// engine holds a sampled page but does not map it, and tells on_touched() or on_lost(). A sample
// that is lost untouched weakens the link that led to it.
//
// Wrong guesses cost time, never correctness: every request is one that the protocol allows at any
// time. Threading: any; a thread that finds its slot in use gets no guess. No allocation, no
// waiting, no system call, no clock. Tables are of fixed size and forget by being overwritten.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "dsm-rdma/bursts.h"
#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/gates.h"
#include "dsm-rdma/types.h"
#include "dsm-rdma/walks.h"

namespace xenspan::dsm {

class Predictor {
 public:
  static constexpr unsigned kMostRun = kMostPrefetch;

  // What became of an early request.
  enum class Start : std::uint8_t {
    kStarted,
    kHeld,     // the right is here already
    kRefused,  // not now: the layout is unknown or forbids it, or someone else is at the page
    kNoRoom,   // no further one at all
  };
  using StartFn = Start (*)(void* context, Ask ask, bool sampled);

  // At most `most` early requests beside a fault; 0: none, ever. At most `ahead` of streams that
  // run ahead.
  Predictor(unsigned most, unsigned ahead) noexcept
      : most_(most < kMostRun ? most : kMostRun),
        most_times_(std::clamp(ahead / kMostAhead / (kMostRun + 1), 1u, kMostAheadRuns)) {}
  bool on() const noexcept { return most_ != 0; }

  // A fault of `thread` needs a request; `site`: the instruction's address, or 0. Calls `start` for
  // each page to ask for with it. How many were started.
  unsigned on_fault(std::uint64_t thread, Ask fault, std::uint64_t site, std::uint64_t now_ns,
                    StartFn start, void* context) noexcept;
  // The thread has come to a page that shows that one of its streams goes on: the fault that
  // on_fault was told of, or a marker. Calls `start` for the next pages of the stream, with
  // `sampled` for the one that is to be the next marker. How many were started.
  unsigned on_marker(std::uint64_t thread, Gfn gfn, StartFn start, void* context) noexcept;
  // Whether something is likely to be asked for with this thread's next fault. If not, the fault's
  // own request need not wait for the guess.
  bool likely(std::uint64_t thread) noexcept;
  // Whether the thread will write this page in the burst that it is part of.
  bool to_be_written(std::uint64_t thread, Gfn gfn) noexcept;
  // The fault and all that was asked for with it are here.
  void on_served(std::uint64_t thread, std::uint64_t now_ns) noexcept;
  // Another host wanted the page within its hold window.
  void on_contention(Gfn gfn, std::uint64_t now_ns) noexcept;

  // A page that is held, and not mapped, is touched. Whether it was a sample, other than a walk's.
  bool on_touched(Gfn gfn) noexcept {
    const std::uint64_t key = take_sample(gfn);
    if (key != 0) judge(key, gfn, true);
    return key != 0 && (key & kOfWalk) == 0;
  }
  // A right to a page is given up.
  void on_lost(Gfn gfn) noexcept {
    if (const std::uint64_t key = take_sample(gfn)) judge(key, gfn, false);
  }

 private:
  static constexpr std::uint64_t kNearNs = 300'000;  // faults further apart do not belong together
  static constexpr std::uint64_t kContendedNs = 20'000'000;   // a page is left alone so long
  static constexpr std::uint64_t kFoughtForNs = 200'000'000;  // one that is lost within a burst
  static constexpr std::uint64_t kTwiceNs = 10'000'000;  // two contentions within this time do it
  static constexpr unsigned kSlots = 64, kStreams = 4, kLinks = 2048, kSamples = 64,
                            kContentions = 256;
  static constexpr unsigned kSteps = 32;  // links followed, or pages looked at, for one fault
  // The first run ahead has so many times the pages of a fault's run, each further one twice as
  // many as the one before, up to the most.
  static constexpr unsigned kAheadRuns = 4, kMostAheadRuns = 16;
  static constexpr unsigned kMostAhead = 3;   // runs of a stream under way, or not touched yet
  static constexpr unsigned kFewBetween = 4;  // one run in so many has a sample
  static constexpr std::int64_t kReach = 16;  // pages between two faults of one stream, at most
  // A link is followed once it was seen kSure times; twice as many for each time that it was wrong.
  static constexpr unsigned kSure = 2, kMostWrong = 5;
  static constexpr unsigned kMostTrust = 8;
  static constexpr std::uint8_t kInVain = 4;  // guesses, one after the other, that found nothing
  // In place of a link's key: a walk of the thread in the slot with the number in the other bits.
  static constexpr std::uint64_t kOfWalk = std::uint64_t{1} << 61;

  struct Stream {
    Gfn last = 0;             // fault, or end of the run
    Gfn run_first = 0;        // the run asked for last; empty when it is behind `last`
    std::int64_t stride = 0;  // 0: unknown
    unsigned window = 0;      // length of the run asked for last
    Right right = Right::kInvalid;
    // When one of these pages is touched, a further run is asked for. In the stream's order.
    std::array<Gfn, kMostAhead> markers{};
    unsigned marked = 0;  // how many
    unsigned ahead = 0;   // runs that may be under way
    unsigned times = 0;   // length of the next one, in runs of a fault
  };
  // What is known of one thread.
  struct Slot {
    FutexLock lock;  // only ever tried
    std::atomic<std::uint8_t> in_vain{0};
    std::uint64_t thread = 0;
    Ask last;  // the last fault, or the end of what was asked for with it
    Ask fault;
    std::uint64_t last_ns = 0;
    unsigned runs = 0;
    unsigned trust = kMostTrust / 2;  // in strides seen once
    unsigned next_stream = 0;
    std::array<Stream, kStreams> streams;
    Bursts bursts;
    Gates gates;
    Walks walks;
    Ask walk;                   // the first page of a walk that is still to be asked for ..
    Gfn walk_end = 0;           // .. up to here, once `fault` has been asked for
    bool apart = false;         // the last fault was on a page that is left alone
    bool through_gate = false;  // the burst that is going on was asked for with such a page
  };
  struct Link {
    std::atomic<std::uint64_t> key{0}, next{0};  // next: a Knowledge in one word
  };
  struct Knowledge {
    std::uint64_t next;  // key
    unsigned seen, wrong;
  };
  struct Sample {
    std::atomic<std::uint64_t> page{0};  // gfn + 1
    std::atomic<std::uint64_t> from{0};  // key of the link that led to it, or kNoLink
  };
  struct Contention {
    std::atomic<Gfn> gfn{0};
    std::atomic<std::uint64_t> last_ns{0}, until_ns{0};
  };
  class Run;

  Slot& slot_of(std::uint64_t thread) noexcept;
  unsigned guess(Slot& slot, std::uint64_t thread, Ask fault, std::uint64_t site,
                 std::uint64_t now_ns, StartFn start, void* context) noexcept;
  unsigned open_gate(Slot& slot, std::uint64_t gate, std::uint64_t now_ns, Run& run) noexcept;
  void walk(Slot& slot, Ask fault, Run& run) noexcept;
  unsigned walk_on(Slot& slot, StartFn start, void* context) noexcept;
  void burst(Slot& slot, Ask fault, Run& run) noexcept;
  Start ask(Slot& slot, Ask ask, std::uint64_t reason, bool first, Run& run) noexcept;
  void follow(Ask fault, Run& run) noexcept;
  void stream(Slot& slot, Ask fault, Run& run) noexcept;
  void extend(Stream& stream, Ask fault, Run& run) noexcept;
  bool run_ahead(Stream& stream, Walks& walks, StartFn start, void* context,
                 unsigned& started) noexcept;
  void remember(Ask from, Ask to) noexcept;
  void judge(std::uint64_t key, Gfn gfn, bool used) noexcept;
  static Knowledge knowledge(const Link& link) noexcept;
  static void keep(Link& link, const Knowledge& known) noexcept;
  bool successor(std::uint64_t key, std::uint64_t& next) const noexcept;
  void leave_alone(Gfn gfn, std::uint64_t now_ns) noexcept;
  bool contended(Gfn gfn, std::uint64_t now_ns) const noexcept;
  std::uint64_t take_sample(Gfn gfn) noexcept;
  void put_sample(Gfn gfn, std::uint64_t from) noexcept;

  const unsigned most_, most_times_;
  std::array<Slot, kSlots> slots_;
  std::array<Link, kLinks> links_;
  std::array<Sample, kSamples> samples_;
  std::array<Contention, kContentions> contentions_;
};

}  // namespace xenspan::dsm
