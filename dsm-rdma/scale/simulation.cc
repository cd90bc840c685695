#include "dsm-rdma/scale/simulation.h"

#include <algorithm>
#include <array>
#include <concepts>
#include <deque>
#include <queue>
#include <unordered_map>

#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/ivy/page_state.h"
#include "dsm-rdma/slot_table.h"
#include "dsm-rdma/wire.h"

namespace xenspan::dsm::scale {
namespace {

using ivy::Kind;
using ivy::Message;
using ivy::Payload;
using ivy::Step;
using ivy::Verdict;

constexpr HostId kHome = 0;

struct Sample {
  Time ns;
  std::uint32_t messages, bytes;
  bool write;
};

FaultFigures figures_of(std::vector<Sample> samples, Time round_trip) {
  FaultFigures out;
  out.faults = samples.size();
  if (samples.empty()) return out;
  const auto count = static_cast<double>(samples.size());
  const auto trips = [&](double ns) { return ns / static_cast<double>(round_trip); };
  std::sort(samples.begin(), samples.end(),
            [](const Sample& a, const Sample& b) { return a.ns < b.ns; });
  double ns = 0;
  for (const Sample& sample : samples) {
    ns += static_cast<double>(sample.ns);
    out.messages += sample.messages;
    out.bytes += sample.bytes;
    out.messages_most = std::max<double>(out.messages_most, sample.messages);
  }
  out.messages /= count;
  out.bytes /= count;
  out.trips_mean = trips(ns / count);
  out.trips_median = trips(static_cast<double>(samples[samples.size() / 2].ns));
  out.trips_p99 = trips(static_cast<double>(samples[samples.size() * 99 / 100].ns));
  return out;
}

template <typename Page>
class Domain {
 public:
  explicit Domain(const Options& options)
      : options_(options),
        slots_(options.hosts),
        network_(options.costs, options.hosts, options.seed ^ 0x6e6574),
        hosts_(options.hosts),
        last_written_(pages_of(options.pattern, options.hosts), 0) {
    for (unsigned i = 0; i < options.hosts; ++i) hosts_[i].random = Random(options.seed * 4096 + i);
  }

  Figures run() {
    for (unsigned i = 0; i < options_.hosts; ++i) {
      schedule(hosts_[i].random.below(static_cast<unsigned>(options_.think_ns) + 1),
               {Event::Kind::kAccess, static_cast<HostId>(i)});
    }
    while (!events_.empty() && figures_.violation.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      handle(event);
    }
    if (figures_.violation.empty()) check_end();
    return summary();
  }

 private:
  enum Thread : std::uint8_t { kVcpu, kService, kThreads };

  struct Place {  // a page at a host
    Page state{};
    std::uint32_t value = 0;  // what stands in the frame: the number of the last write
    std::uint32_t parked = 0;
  };
  struct Arrived {
    Message message;
    std::uint32_t value;
  };
  struct Queue {                        // what a thread of a host has to do
    std::deque<std::uint32_t> waiting;  // of mail_
    bool busy = false;
  };
  struct Host {
    std::unordered_map<Gfn, Place> pages;
    std::unordered_map<Gfn, std::array<std::uint64_t, ivy::WidePageState::kRowWords>> rows;
    std::vector<Arrived> parked;
    std::array<Queue, kThreads> queues;
    Random random{0};
    Access access{0, false};
    std::uint64_t accesses = 0, faults = 0;
    std::uint32_t txn = 0;
    bool waiting = false, measured = false;
    Time fault_began = 0;
    std::uint32_t fault_messages = 0, fault_bytes = 0;
  };
  struct Event {
    enum class Kind : std::uint8_t {
      kAccess,  // the host's vCPU makes its next access
      kArrive,  // a message is there
      kHandle,  // a thread has received its next message
      kIdle,    // a thread is done with a message and what followed
    };
    Kind kind;
    HostId host;
    Thread thread = kVcpu;
    std::uint32_t mail = 0;
    Time time = 0;
    std::uint64_t number = 0;
    bool operator<(const Event& other) const {  // the first one is the greatest
      return time != other.time ? time > other.time : number > other.number;
    }
  };

  ivy::View view(HostId self, Gfn gfn) {
    ivy::View out{self, kHome, slots_.manager(gfn)};
    if constexpr (std::same_as<Page, ivy::WidePageState>) {
      if (self == out.manager) out.row = hosts_[self].rows[gfn].data();
    }
    return out;
  }
  void fail(const char* what) {
    if (figures_.violation.empty()) figures_.violation = what;
  }
  void schedule(Time time, Event event) {
    event.time = time;
    event.number = next_number_++;
    events_.push(event);
  }

  void handle(const Event& event) {
    switch (event.kind) {
      case Event::Kind::kAccess: return access(event.host);
      case Event::Kind::kArrive: {
        hosts_[event.host].queues[event.thread].waiting.push_back(event.mail);
        return work(event.host, event.thread);
      }
      case Event::Kind::kHandle: {
        const Arrived arrived = mail_[event.mail];
        free_mail_.push_back(event.mail);
        Time at = now_;
        feed(event.host, arrived, at);
        settle(event.host, at);
        return schedule(at, {Event::Kind::kIdle, event.host, event.thread});
      }
      case Event::Kind::kIdle:
        hosts_[event.host].queues[event.thread].busy = false;
        return work(event.host, event.thread);
    }
  }

  void work(HostId host, Thread thread) {
    Queue& queue = hosts_[host].queues[thread];
    if (queue.busy || queue.waiting.empty()) return;
    queue.busy = true;
    const std::uint32_t mail = queue.waiting.front();
    queue.waiting.pop_front();
    schedule(now_ + options_.costs.receive_ns, {Event::Kind::kHandle, host, thread, mail});
  }

  // ---- the vCPU

  void access(HostId self) {
    Host& host = hosts_[self];
    if (measured_ >= options_.faults) return;  // the end: what is under way comes to rest
    host.access = next_access(options_.pattern, options_.hosts, self, host.accesses++, host.access,
                              host.random);
    const Right wanted = host.access.write ? Right::kExclusive : Right::kShared;
    const Gfn gfn = host.access.gfn;
    Place& place = host.pages[gfn];
    if (right_of(place.state, view(self, gfn)) >= wanted) return use(self, now_);
    host.measured = ++host.faults > Options::kWarmUp;
    host.waiting = true;
    host.fault_began = now_;
    host.fault_messages = host.fault_bytes = 0;
    steps_.clear();
    if (on_fault(place.state, view(self, gfn), gfn, wanted, false, kLane, ++host.txn, steps_) !=
        ivy::FaultStart::kStarted) {
      return fail("a fault that starts nothing");
    }
    Time at = now_ + options_.costs.fault_ns;
    carry_out(self, at);
    settle(self, at);
  }

  // The right is here: the access takes place.
  void use(HostId self, Time at) {
    Host& host = hosts_[self];
    const Gfn gfn = host.access.gfn;
    Place& place = host.pages[gfn];
    if (place.value != last_written_[gfn]) fail("I2: a guest sees a value that is not the last");
    if (host.access.write) {
      place.value = ++last_written_[gfn];
    } else {
      ++figures_.checked_reads;
    }
    ++figures_.accesses;
    schedule(at + options_.think_ns, {Event::Kind::kAccess, self});
  }

  void completed(HostId self, Time at) {
    Host& host = hosts_[self];
    if (!host.waiting) return fail("a request was completed that nobody waits for");
    host.waiting = false;
    if (host.measured) {
      ++measured_;
      samples_.push_back(
          {at - host.fault_began, host.fault_messages, host.fault_bytes, host.access.write});
    }
    use(self, at);
  }

  // ---- messages

  // What a host has sent to itself, until nothing is left.
  void settle(HostId self, Time& at) {
    while (!own_.empty()) {
      const Arrived next = own_.front();
      own_.pop_front();
      feed(self, next, at);
    }
  }

  void feed(HostId self, const Arrived& arrived, Time& at) {
    Host& host = hosts_[self];
    const Message& message = arrived.message;
    Place& place = host.pages[message.gfn];
    const ivy::View seen = view(self, message.gfn);
    if (message.kind == Kind::kGrant && message.payload != Payload::kNone) {
      if (!expects_contents(place.state, seen, message)) return fail("contents were refused");
      place.value = arrived.value;
    }
    steps_.clear();
    const Verdict verdict = on_message(place.state, seen, message, steps_);
    if (verdict == Verdict::kEarly) {
      ++place.parked;
      host.parked.push_back(arrived);
      figures_.parked_most = std::max<std::uint64_t>(figures_.parked_most, host.parked.size());
      return;
    }
    if (verdict != Verdict::kAccepted) return fail("a correct message was refused");
    carry_out(self, at);
    if (place.parked != 0) release(host, message.gfn, place);
  }

  // As the engine: the page has got further, so its early messages are looked at again.
  void release(Host& host, Gfn gfn, Place& place) {
    place.parked = 0;
    const auto rest =
        std::stable_partition(host.parked.begin(), host.parked.end(),
                              [gfn](const Arrived& parked) { return parked.message.gfn != gfn; });
    own_.insert(own_.end(), rest, host.parked.end());
    host.parked.erase(rest, host.parked.end());
  }

  void carry_out(HostId self, Time& at) {
    const Costs& costs = options_.costs;
    bool complete = false;
    for (const Step& step : steps_) {
      switch (step.kind) {
        case Step::Kind::kWithdraw: at += costs.withdraw_ns; break;
        case Step::Kind::kProtect: at += costs.protect_ns; break;
        case Step::Kind::kSend: send(self, step.message, at); break;
        case Step::Kind::kComplete: complete = true; break;
        case Step::Kind::kDropFrame:
        case Step::Kind::kGrantShared:
        case Step::Kind::kGrantExclusive: break;  // part of fault_ns
      }
    }
    if (complete) completed(self, at);
  }

  void send(HostId self, const Message& message, Time& at) {
    const std::uint32_t value = hosts_[self].pages[message.gfn].value;
    if (message.to == self) {
      own_.push_back({message, value});
      return;
    }
    at += options_.costs.send_ns;
    const std::size_t bytes =
        wire::kMessageBytes + (message.payload == Payload::kPage ? kPageSize : 0);
    Host& requester = hosts_[message.requester];
    ++requester.fault_messages;
    requester.fault_bytes += static_cast<std::uint32_t>(bytes);
    ++figures_.messages;
    const bool answer = message.kind == Kind::kGrant || message.kind == Kind::kInvalidateAck;
    schedule(
        network_.arrival(at, self, message.to, bytes),
        {Event::Kind::kArrive, message.to, answer ? kVcpu : kService, put_mail({message, value})});
  }

  std::uint32_t put_mail(const Arrived& arrived) {
    if (free_mail_.empty()) {
      mail_.push_back(arrived);
      return static_cast<std::uint32_t>(mail_.size() - 1);
    }
    const std::uint32_t index = free_mail_.back();
    free_mail_.pop_back();
    mail_[index] = arrived;
    return index;
  }

  // ---- the end

  // Everything has come to rest: each copyset is who holds the page.
  void check_end() {
    for (const Host& host : hosts_) {
      if (host.waiting) return fail("I3: a fault never ended");
      if (!host.parked.empty()) return fail("an early message was never handled");
    }
    for (Gfn gfn = 0; gfn < last_written_.size(); ++gfn) check_page(gfn);
  }
  void check_page(Gfn gfn) {
    const HostId manager = slots_.manager(gfn);
    const auto entry = hosts_[manager].pages.find(gfn);
    if (entry == hosts_[manager].pages.end() || !entry->second.state.directory_set) return;
    const Place& place = entry->second;
    const ivy::View seen = view(manager, gfn);
    unsigned holders = 0, writers = 0;
    for (unsigned i = 0; i < options_.hosts; ++i) {
      const auto self = static_cast<HostId>(i);
      const auto found = hosts_[i].pages.find(gfn);
      const Right right =
          right_of(found == hosts_[i].pages.end() ? Page{} : found->second.state, view(self, gfn));
      holders += right != Right::kInvalid;
      writers += right == Right::kExclusive;
      if (listed(place.state, seen, self) != (right != Right::kInvalid)) {
        fail("a copyset is not who holds the page");
      }
    }
    if (holders == 0 || writers > 1 || (writers == 1 && holders != 1)) fail("I1: rights disagree");
  }
  static bool listed(const ivy::PageState& page, const ivy::View&, HostId host) {
    return (page.hosts() & mask_of(host)) != 0;
  }
  static bool listed(const ivy::WidePageState&, const ivy::View& view, HostId host) {
    return (view.row[host / 64] >> host % 64 & 1) != 0;
  }

  Figures summary() {
    const Time round_trip = options_.costs.round_trip_ns();
    std::vector<Sample> reads, writes;
    for (const Sample& sample : samples_) (sample.write ? writes : reads).push_back(sample);
    figures_.all = figures_of(samples_, round_trip);
    figures_.reads = figures_of(reads, round_trip);
    figures_.writes = figures_of(writes, round_trip);
    figures_.virtual_ns = now_;
    std::vector<std::uint64_t> managed(options_.hosts, 0);
    for (Gfn gfn = 0; gfn < last_written_.size(); ++gfn) ++managed[slots_.manager(gfn)];
    for (const Host& host : hosts_) {
      figures_.entries_most = std::max<std::uint64_t>(figures_.entries_most, host.pages.size());
    }
    figures_.rows_most = *std::max_element(managed.begin(), managed.end());
    return figures_;
  }

  static constexpr Lane kLane = 1;  // the vCPU's own

  const Options options_;
  const SlotTable slots_;
  Network network_;
  std::vector<Host> hosts_;
  std::vector<std::uint32_t> last_written_;
  std::priority_queue<Event> events_;
  std::vector<Arrived> mail_;  // in flight or waiting
  std::vector<std::uint32_t> free_mail_;
  std::deque<Arrived> own_;  // of the host at work to itself
  ivy::WideSteps steps_;
  std::vector<Sample> samples_;
  Time now_ = 0;
  std::uint64_t next_number_ = 0, measured_ = 0;
  Figures figures_;
};

}  // namespace

Figures simulate(const Options& options) {
  const bool wide = options.wide || options.hosts > ivy::PageState::kHosts;
  return wide ? Domain<ivy::WidePageState>(options).run() : Domain<ivy::PageState>(options).run();
}

}  // namespace xenspan::dsm::scale
