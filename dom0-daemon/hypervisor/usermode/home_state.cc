#include "dom0-daemon/hypervisor/usermode/home_state.h"

#include <algorithm>
#include <cerrno>
#include <set>

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::size_t kMostThreads = 1 << 16, kMostWaiters = kMostThreads;
constexpr std::size_t kMostMappings = 1 << 17, kMostRanges = 1 << 20, kMostBlocks = 1 << 20;
constexpr std::size_t kMostStrings = 1 << 16, kMostStringBytes = 2 << 20;  // as execve(2)'s

// ---- bytes of parts

void put_count(Writer& out, std::size_t count) { out.put(static_cast<std::uint32_t>(count)); }

void put_text(Writer& out, const std::string& text) {
  put_count(out, text.size());
  out.bytes(text.data(), text.size());
}

template <typename List, typename Put>
void put_list(Writer& out, const List& list, Put put_one) {
  put_count(out, list.size());
  for (const auto& each : list) put_one(each);
}

void put_ranges(Writer& out, const std::vector<Range>& ranges) {
  put_list(out, ranges, [&](const Range& range) { out.put(range.start).put(range.end); });
}

// Takes parts, and remembers that one was wrong. Lists grow with what is there: a count alone costs
// nothing.
class Taker {
 public:
  explicit Taker(const Packet& packet) : in(packet) {}

  template <typename One>
  void list(std::size_t most, One take_one) {
    const auto count = in.get<std::uint32_t>();
    demand(in.ok() && count <= most);
    for (std::uint32_t i = 0; i < count && good(); ++i) take_one();
  }
  std::string text(std::size_t most) {
    const auto bytes = in.get<std::uint32_t>();
    demand(in.ok() && bytes <= most);
    return good() ? in.text(bytes) : std::string();
  }
  std::vector<std::string> texts() {
    std::vector<std::string> all;
    list(kMostStrings, [&] { all.push_back(text(kMostStringBytes)); });
    return all;
  }
  std::vector<Range> ranges() {
    std::vector<Range> all;
    list(kMostRanges, [&] {
      const auto start = in.get<std::uint64_t>();
      all.push_back({start, in.get<std::uint64_t>()});
    });
    return all;
  }
  std::vector<siginfo_t> signals() {
    std::vector<siginfo_t> all;
    list(64, [&] {
      all.push_back(in.get<siginfo_t>());
      const int signo = all.back().si_signo;
      // In order, so each at most once.
      demand(signo >= 1 && signo <= 64 && (all.size() < 2 || all[all.size() - 2].si_signo < signo));
    });
    return all;
  }
  OpenFile file() {
    auto taken = take_open_file(in);
    demand(taken.has_value());
    return taken ? std::move(*taken) : OpenFile();
  }
  void demand(bool good) { good_ = good_ && good; }
  bool good() const { return good_ && in.ok(); }

  Reader in;

 private:
  bool good_ = true;
};

void put_threads(Writer& out, const HomeState& state) {
  const auto signals = [&](const std::vector<siginfo_t>& list) {
    put_list(out, list, [&](const siginfo_t& info) { out.put(info); });
  };
  out.put(state.pid).put(state.next_tid);
  put_list(out, state.threads, [&](const HomeState::Thread& thread) {
    out.put(thread.tid).put(thread.vcpu).put(thread.told_vcpu).put(thread.host).put(thread.core);
    out.put(thread.mask).put(thread.futex_count).put(thread.woken).put(thread.affinity);
    signals(thread.pending);
  });
  put_list(out, state.waiters, [&](const FutexTable::Waiter& waiter) {
    out.put(waiter.ticket).put(waiter.bitset).put(waiter.address);
  });
  out.put(state.leases.version);
  put_list(out, state.leases.holders,
           [&](const auto& lease) { out.put(lease.first).put(lease.second); });
  for (const GuestAction& action : state.actions) out.put(action);
  signals(state.pending);
  out.put(state.timer_left).put(state.timer_interval);
}

void take_thread(Taker& from, unsigned vcpus, HomeState& state) {
  Reader& in = from.in;
  HomeState::Thread thread;
  thread.tid = in.get<std::int32_t>();
  thread.vcpu = in.get<std::uint32_t>();
  thread.told_vcpu = in.get<std::uint32_t>();
  thread.host = in.get<std::uint16_t>();
  thread.core = in.get<std::int32_t>();
  thread.mask = in.get<std::uint64_t>();
  thread.futex_count = in.get<std::uint32_t>();
  thread.woken = in.get<std::uint8_t>();
  thread.affinity = in.get<std::array<std::uint64_t, 16>>();
  thread.pending = from.signals();
  from.demand(thread.tid >= state.pid && thread.tid < state.next_tid && thread.vcpu < vcpus &&
              thread.told_vcpu < vcpus && thread.host < dsm::kMaxHosts && thread.core >= 0 &&
              thread.woken <= 1);
  // In order, so each once.
  from.demand(state.threads.empty() || state.threads.back().tid < thread.tid);
  state.threads.push_back(std::move(thread));
}

void take_threads(Taker& from, unsigned vcpus, HomeState& state) {
  Reader& in = from.in;
  state.pid = in.get<std::int32_t>();
  state.next_tid = in.get<std::int32_t>();
  from.demand(state.pid > 0 && state.next_tid > state.pid);
  from.list(kMostThreads, [&] { take_thread(from, vcpus, state); });
  from.demand(!state.threads.empty());
  std::set<std::int32_t> tids, waiting;
  for (const auto& thread : state.threads) tids.insert(thread.tid);
  from.list(kMostWaiters, [&] {
    FutexTable::Waiter waiter{};
    waiter.ticket = in.get<FutexTicket>();
    waiter.bitset = in.get<std::uint32_t>();
    waiter.address = in.get<std::uint64_t>();
    const auto tid = static_cast<std::int32_t>(waiter.ticket >> 32);
    from.demand(tids.contains(tid) && waiting.insert(tid).second);
    state.waiters.push_back(waiter);
  });
  state.leases.version = in.get<std::uint64_t>();
  from.list(kFutexLeases, [&] {
    const auto address = in.get<std::uint64_t>();
    state.leases.holders.emplace_back(address, in.get<dsm::HostMask>());
  });
  for (GuestAction& action : state.actions) action = in.get<GuestAction>();
  state.pending = from.signals();
  state.timer_left = in.get<std::int64_t>();
  state.timer_interval = in.get<std::int64_t>();
  from.demand(state.timer_left >= 0 && state.timer_interval >= 0);
}

void put_layout(Writer& out, const HomeState& state) {
  out.put(state.layout.brk_start).put(state.layout.brk);
  put_list(out, state.layout.mappings, [&](const Mapping& mapping) {
    out.put(mapping.range.start).put(mapping.range.end).put(mapping.prot);
    out.put(static_cast<std::uint8_t>(mapping.shared)).put(mapping.backing).put(mapping.offset);
    put_text(out, mapping.name);
  });
  put_ranges(out, state.layout.contents);
  put_ranges(out, state.layout.file_writes);
  out.put(state.layout_version);
  put_list(out, state.known_by, [&](const auto& each) { out.put(each.first).put(each.second); });
  put_list(out, state.backings, [&](const auto& each) {
    out.put(each.first);
    put(each.second, out);
  });
}

void take_layout(Taker& from, std::uint64_t memory, HomeState& state) {
  Reader& in = from.in;
  state.layout.brk_start = in.get<std::uint64_t>();
  state.layout.brk = in.get<std::uint64_t>();
  std::set<int> used, there;
  from.list(kMostMappings, [&] {
    Mapping mapping;
    mapping.range.start = in.get<std::uint64_t>();
    mapping.range.end = in.get<std::uint64_t>();
    mapping.prot = in.get<int>();
    const auto shared = in.get<std::uint8_t>();
    mapping.shared = shared == 1;
    mapping.backing = in.get<int>();
    mapping.offset = in.get<std::uint64_t>();
    mapping.name = from.text(kMostPathBytes);
    from.demand(shared <= 1);
    if (mapping.backing >= 0) used.insert(mapping.backing);
    state.layout.mappings.push_back(std::move(mapping));
  });
  state.layout.contents = from.ranges();
  state.layout.file_writes = from.ranges();
  state.layout_version = in.get<std::uint64_t>();
  from.list(kMostBlocks, [&] {
    const auto block = in.get<std::uint64_t>();
    state.known_by.emplace_back(block, in.get<dsm::HostMask>());
  });
  from.list(kMostMappings, [&] {
    const auto id = in.get<std::int32_t>();
    state.backings.emplace_back(id, from.file());
    from.demand(id >= 0 && there.insert(id).second);
  });
  from.demand(std::includes(there.begin(), there.end(), used.begin(), used.end()));
  if (from.good()) from.demand(AddressSpace(memory).take(state.layout));
}

void put_program(Writer& out, const HomeState& state) {
  const Program& program = state.program;
  put_text(out, program.path);
  put_text(out, program.given);
  for (const auto* list : {&program.arguments, &program.environment})
    put_list(out, *list, [&](const std::string& text) { put_text(out, text); });
  out.put(program.uid).put(program.gid).put(program.hwcap).put(program.hwcap2);
  put_text(out, state.auxv);
  put_text(out, state.cwd);
  out.put(state.umask);
  put_list(out, state.files, [&](const OpenFile& file) { put(file, out); });
}

void take_program(Taker& from, int descriptor_limit, HomeState& state) {
  Reader& in = from.in;
  Program& program = state.program;
  program.path = from.text(kMostPathBytes);
  program.given = from.text(kMostPathBytes);
  program.arguments = from.texts();
  program.environment = from.texts();
  program.uid = in.get<std::uint32_t>();
  program.gid = in.get<std::uint32_t>();
  program.hwcap = in.get<std::uint64_t>();
  program.hwcap2 = in.get<std::uint64_t>();
  state.auxv = from.text(kMostPathBytes);
  state.cwd = from.text(kMostPathBytes);
  state.umask = in.get<std::uint32_t>();
  from.demand(program.path.starts_with('/') && state.cwd.starts_with('/') && state.umask <= 0777);
  std::set<std::int32_t> originals;
  int last = -1;
  from.list(kMostOpenFiles, [&] {
    OpenFile file = from.file();
    from.demand(file.number > last && file.number < descriptor_limit &&
                (file.same_as < 0 || originals.contains(file.same_as)));
    last = file.number;
    if (file.same_as < 0) originals.insert(file.number);
    state.files.push_back(std::move(file));
  });
}

Error malformed(const char* what) {
  return Error{EBADMSG, std::string("the home's state is malformed: its ") + what};
}

}  // namespace

Packet pack(const HomeState& state) {
  Packet packet;
  Writer out(packet);
  out.put(kHomeStateVersion);
  put_threads(out, state);
  put_layout(out, state);
  put_program(out, state);
  return packet;
}

Result<HomeState> parse_home_state(const Packet& packet, unsigned vcpus, int descriptor_limit,
                                   std::uint64_t memory) {
  if (packet.size() > kMaxHomeState) return malformed("length");
  Taker from(packet);
  if (const auto version = from.in.get<std::uint32_t>(); version != kHomeStateVersion)
    return Error{EPROTONOSUPPORT, "the home's state has version " + std::to_string(version) +
                                      ", and this host takes " + std::to_string(kHomeStateVersion) +
                                      ": install the same xenspan on all hosts"};
  HomeState state;
  take_threads(from, vcpus, state);
  if (!from.good()) return malformed("threads");
  take_layout(from, memory, state);
  if (!from.good()) return malformed("layout");
  take_program(from, descriptor_limit, state);
  if (!from.good() || !from.in.empty()) return malformed("program or files");
  return state;
}

}  // namespace xenspan::hypervisor::usermode
