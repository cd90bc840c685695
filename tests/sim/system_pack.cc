// A System as bytes and back, for the explorer. States that behave alike give equal bytes: messages
// in flight are sorted, values are reduced to zero, current and stale, which is all that any check
// can tell apart.
#include <algorithm>
#include <bit>
#include <cstring>

#include "tests/sim/system.h"

namespace xenspan::dsm::sim {
namespace {

constexpr Value kCurrent = 1, kStale = 2;
constexpr std::uint8_t kNobodyByte = 255;

// Through a buffer of its own: most of an exploration is spent here.
class Writer {
 public:
  explicit Writer(std::vector<std::uint8_t>& bytes) : bytes_(bytes) {}
  ~Writer() { flush(); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  template <typename T>
  void put(const T& value) {
    if (used_ + sizeof value > buffer_.size()) flush();
    std::memcpy(buffer_.data() + used_, &value, sizeof value);
    used_ += sizeof value;
  }
  void put_byte(std::size_t value) { put(static_cast<std::uint8_t>(value)); }
  // What was put so far is in the bytes.
  void flush() {
    bytes_.insert(bytes_.end(), buffer_.data(), buffer_.data() + used_);
    used_ = 0;
  }

 private:
  std::vector<std::uint8_t>& bytes_;
  std::array<std::uint8_t, 1024> buffer_;
  std::size_t used_ = 0;
};

class Reader {
 public:
  explicit Reader(const std::vector<std::uint8_t>& bytes) : at_(bytes.data()) {}
  template <typename T>
  T get() {
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  template <typename T>
  void get_into(T& value) {
    value = get<T>();
  }
  std::uint8_t get_byte() { return *at_++; }
  const std::uint8_t* at() const { return at_; }
  void skip_to(const std::uint8_t* at) { at_ = at; }

 private:
  const std::uint8_t* at_;
};

// Fields with the bits a small system needs (8 hosts, 4 pages, txn below 2^16, fewer than 256
// writes of a page), and the contents' class.
std::uint64_t pack_message(const ivy::Message& m, Value contents, bool repeated) {
  std::uint64_t bits = 0;
  const auto add = [&](std::uint64_t value, unsigned width) { bits = bits << width | value; };
  add(static_cast<unsigned>(m.kind), 4);
  add(static_cast<unsigned>(m.payload), 2);
  add(static_cast<unsigned>(m.right), 2);
  add(m.discard, 1);
  add(m.from, 3);
  add(m.to, 3);
  add(m.requester, 3);
  add(m.acks, 4);
  add(m.gfn, 2);
  add(m.txn, 16);
  add(m.version, 8);
  add(m.reads, 3);
  add(m.moves, 4);
  add(repeated, 1);
  add(contents, 2);
  return bits;
}

ivy::Message unpack_message(std::uint64_t bits, Value* contents, bool* repeated) {
  const auto take = [&](unsigned width) {
    const std::uint64_t value = bits & ((1u << width) - 1);
    bits >>= width;
    return value;
  };
  *contents = static_cast<Value>(take(2));
  ivy::Message m;
  *repeated = take(1) != 0;
  m.moves = static_cast<Moves>(take(4));
  m.reads = static_cast<std::uint8_t>(take(3));
  m.version = static_cast<std::uint16_t>(take(8));
  m.txn = static_cast<std::uint32_t>(take(16));
  m.gfn = take(2);
  m.acks = static_cast<std::uint8_t>(take(4));
  m.requester = static_cast<HostId>(take(3));
  m.to = static_cast<HostId>(take(3));
  m.from = static_cast<HostId>(take(3));
  m.discard = take(1) != 0;
  m.right = static_cast<Right>(take(2));
  m.payload = static_cast<ivy::Payload>(take(2));
  m.kind = static_cast<ivy::Kind>(take(4));
  return m;
}

// The same numbers for other hosts: what a state, a message and a request's number (txn_of) say of
// a host is rewritten.
class Renumber {
 public:
  Renumber(const std::array<HostId, kMaxPackedHosts>& order, unsigned vcpus_per_host)
      : order_(order), vcpus_per_host_(vcpus_per_host) {
    for (unsigned host = 0; host < kMaxPackedHosts; ++host) same_ = same_ && order[host] == host;
  }
  HostId host(HostId old) const { return order_[old]; }
  std::uint32_t txn(std::uint32_t old) const {
    if (same_ || old < kTxnsOfVcpu) return old;
    const unsigned vcpu = old / kTxnsOfVcpu - 1, of_host = vcpu % vcpus_per_host_;
    const unsigned now = order_[vcpu / vcpus_per_host_] * vcpus_per_host_ + of_host;
    return (now + 1) * kTxnsOfVcpu + old % kTxnsOfVcpu;
  }
  ivy::Message message(ivy::Message m) const {
    m.from = host(m.from);
    m.to = host(m.to);
    m.requester = host(m.requester);
    if (m.kind != ivy::Kind::kRow) m.txn = txn(m.txn);
    return m;
  }
  ivy::PageState state(ivy::PageState page) const {
    page.set_hosts(hosts(page.hosts()));
    return with_numbers(page);
  }
  ivy::WidePageState state(ivy::WidePageState page) const { return with_numbers(page); }
  HostMask hosts(HostMask mask) const {
    if (same_) return mask;
    HostMask renumbered = 0;
    for (; mask != 0; mask &= mask - 1)
      renumbered |= mask_of(order_[static_cast<unsigned>(std::countr_zero(mask))]);
    return renumbered;
  }

 private:
  template <typename Page>
  Page with_numbers(Page page) const {
    page.txn = txn(page.txn);
    page.owner = host(static_cast<HostId>(page.owner));
    return page;
  }
  const std::array<HostId, kMaxPackedHosts>& order_;
  unsigned vcpus_per_host_;
  bool same_ = true;  // nothing changes
};

}  // namespace

void System::find_alike_hosts() {
  std::vector<HostId> alike;
  std::array<HostId, kMaxPackedHosts> same{};
  for (unsigned host = 0; host < kMaxPackedHosts; ++host) {
    same[host] = static_cast<HostId>(host);
    const auto managers = shape_.managers.begin();
    const bool manages =
        std::find(managers, managers + shape_.pages, host) != managers + shape_.pages;
    if (host < shape_.hosts && host != shape_.home && !manages) alike.push_back(same[host]);
  }
  orders_.assign(1, same);
  if (shape_.elastic) return;
  std::vector<HostId> shuffled = alike;
  while (std::next_permutation(shuffled.begin(), shuffled.end())) {
    orders_.push_back(same);
    for (std::size_t i = 0; i < alike.size(); ++i) orders_.back()[alike[i]] = shuffled[i];
  }
}

void System::pack(std::vector<std::uint8_t>& bytes) {
  if (orders_.empty()) find_alike_hosts();
  pack_as(orders_.front(), bytes, nullptr);
  for (std::size_t i = 1; i < orders_.size(); ++i) {
    if (pack_as(orders_[i], other_bytes_, &bytes) && other_bytes_ < bytes) bytes.swap(other_bytes_);
  }
}

// false: the bytes so far are above those of `best`, and the rest is left out.
bool System::pack_as(const std::array<HostId, kMaxPackedHosts>& order,
                     std::vector<std::uint8_t>& bytes, const std::vector<std::uint8_t>* best) {
  bytes.clear();
  Writer out(bytes);
  const auto is_above_best = [&] {
    if (best == nullptr) return false;
    out.flush();
    return std::memcmp(bytes.data(), best->data(), std::min(bytes.size(), best->size())) > 0;
  };
  const Renumber renumber(order, shape_.vcpus_per_host);
  std::array<HostId, kMaxPackedHosts> old{};  // at each new number the old one
  for (unsigned host = 0; host < kMaxPackedHosts; ++host)
    old[order[host]] = static_cast<HostId>(host);
  const auto class_of = [&](unsigned page, Value value) {
    return value == 0 ? 0 : value == current_[page] ? kCurrent : kStale;
  };
  out.put_byte(crashed() ? order[dead_] : kNobodyByte);
  if (shape_.elastic) {
    out.flush();
    pack_members(bytes);
  }
  if (shape_.survive && crashed()) {
    for (unsigned host = 0; host < shape_.hosts; ++host)
      out.put_byte(static_cast<unsigned>(rebuild_.stages[host]));
    out.put_byte(rebuild_.stopped);
    // What it was involved in matters until it is known that nothing was lost.
    out.put_byte(any_left(Stage::kAbandoned) ? 0 : rebuild_.involved);
  }
  for (unsigned v = 0; v < shape_.vcpus(); ++v) {
    const Vcpu& vcpu = vcpus_[old[host_of(v)] * shape_.vcpus_per_host + v % shape_.vcpus_per_host];
    out.put_byte(static_cast<unsigned>(vcpu.mode) | static_cast<unsigned>(vcpu.op) << 2 |
                 static_cast<unsigned>(vcpu.page) << 4 | vcpu.dropped << 6);
    out.put_byte(vcpu.ops_left | vcpu.faults << 4);
  }
  if (is_above_best()) return false;
  for (unsigned page = 0; page < shape_.pages; ++page) {
    out.put_byte(current_[page] != 0);
    for (unsigned host = 0; host < shape_.hosts; ++host) {
      const Place& place = places_[old[host]][page];
      place.state.with(shape_.wide, [&](const auto& state) { out.put(renumber.state(state)); });
      if (shape_.wide) out.put_byte(renumber.hosts(place.row[0]));
      out.put_byte(static_cast<unsigned>(place.mapped) | class_of(page, place.frame) << 2);
      const Work& work = work_[old[host]][page];
      if (!shape_.fine) continue;
      out.put_byte(work.steps.size() - work.at);
      for (std::size_t i = work.at; i < work.steps.size(); ++i) {
        out.put_byte(static_cast<unsigned>(work.steps[i].kind));
        out.put(pack_message(renumber.message(work.steps[i].message), 0, false));
      }
    }
    if (is_above_best()) return false;
  }
  std::array<std::uint64_t, 64> messages;
  const std::size_t count = std::min(in_flight_.size(), messages.size());
  if (count < in_flight_.size()) fail("more messages in flight than the explorer has room for");
  for (std::size_t i = 0; i < count; ++i) {
    const InFlight& flight = in_flight_[i];
    messages[i] = pack_message(renumber.message(flight.message),
                               class_of(static_cast<unsigned>(flight.message.gfn), flight.contents),
                               flight.repeated);
  }
  std::sort(messages.begin(), messages.begin() + count);
  out.put_byte(count);
  for (std::size_t i = 0; i < count; ++i) out.put(messages[i]);
  return true;
}

void System::pack_members(std::vector<std::uint8_t>& bytes) const {
  const auto put = [&](std::size_t value) { bytes.push_back(static_cast<std::uint8_t>(value)); };
  put(members_.moves_left | members_.joined << 4 | members_.draining << 5 | members_.left << 6);
  put(members_.learned);
  put(members_.homeless);
  put(members_.kept);
  put(members_.unanswered);
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    put(members_.own_txns[host]);
    for (unsigned slot = 0; slot < slot_count(); ++slot) {
      const ivy::SlotState& state = members_.slots[host][slot];
      using Phase = ivy::SlotState::Phase;
      // What no phase but its own looks at does not tell states apart.
      const bool coming = state.phase == Phase::kComing, going = state.phase == Phase::kGoing;
      put(state.manager | static_cast<unsigned>(state.phase) << 4 | (coming && state.counted) << 6);
      put(state.moves);
      put(coming ? state.expected << 4 | state.arrived : 0);
      put(coming ? state.before : 0);
      put(coming ? state.moves_before : 0);
      put(state.asked);
      put(going ? members_.next_row[host][slot] << 4 | members_.rows[host][slot] : 0);
    }
    for (unsigned page = 0; page < shape_.pages; ++page) {
      put(members_.awaited[host][page] >> 8);
      put(members_.awaited[host][page]);
    }
  }
}

const std::uint8_t* System::unpack_members(const std::uint8_t* from) {
  const unsigned flags = *from++;
  members_.moves_left = flags & 15;
  members_.joined = (flags >> 4 & 1) != 0;
  members_.draining = (flags >> 5 & 1) != 0;
  members_.left = (flags >> 6 & 1) != 0;
  members_.learned = *from++;
  members_.homeless = *from++;
  members_.kept = *from++;
  members_.unanswered = *from++;
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    members_.own_txns[host] = *from++;
    for (unsigned slot = 0; slot < slot_count(); ++slot) {
      ivy::SlotState& state = members_.slots[host][slot];
      state.manager = *from & 15;
      state.phase = static_cast<ivy::SlotState::Phase>(*from >> 4 & 3);
      state.counted = (*from++ >> 6 & 1) != 0;
      state.moves = *from++;
      state.expected = *from >> 4;
      state.arrived = *from++ & 15;
      state.before = *from++;
      state.moves_before = *from++;
      state.asked = *from++;
      members_.next_row[host][slot] = *from >> 4;
      members_.rows[host][slot] = *from++ & 15;
    }
    for (unsigned page = 0; page < shape_.pages; ++page) {
      const unsigned high = *from++;
      members_.awaited[host][page] = high << 8 | *from++;
    }
  }
  return from;
}

void System::unpack(const Shape& shape, const std::vector<std::uint8_t>& bytes) {
  // Of the same shape all else is overwritten below.
  if (shape == shape_ && places_.size() == shape.hosts)
    clear_run();
  else
    reset(shape);
  Reader in(bytes);
  const std::uint8_t dead = in.get_byte();
  if (dead != kNobodyByte) dead_ = dead;
  if (shape_.elastic) in.skip_to(unpack_members(in.at()));
  if (shape_.survive && crashed()) {
    for (unsigned host = 0; host < shape_.hosts; ++host)
      rebuild_.stages[host] = static_cast<Stage>(in.get_byte());
    rebuild_.stopped = in.get_byte() != 0;
    rebuild_.involved = in.get_byte();
  }
  for (unsigned v = 0; v < shape_.vcpus(); ++v) {
    Vcpu& vcpu = vcpus_[v];
    const unsigned first = in.get_byte(), second = in.get_byte();
    vcpu.mode = static_cast<Mode>(first & 3);
    vcpu.op = static_cast<Op>(first >> 2 & 3);
    vcpu.page = first >> 4 & 3;
    vcpu.dropped = (first >> 6 & 1) != 0;
    vcpu.ops_left = second & 15;
    vcpu.faults = static_cast<std::uint8_t>(second >> 4);
  }
  for (unsigned page = 0; page < shape_.pages; ++page) {
    current_[page] = in.get_byte() != 0 ? kCurrent : 0;
    for (unsigned host = 0; host < shape_.hosts; ++host) {
      Place& place = places_[host][page];
      place.state.with(shape_.wide, [&](auto& state) { in.get_into(state); });
      if (shape_.wide) place.row[0] = in.get_byte();
      const unsigned packed = in.get_byte();
      place.mapped = static_cast<Right>(packed & 3);
      place.frame = packed >> 2 & 3;
      Work& work = work_[host][page];
      work.clear();
      if (!shape_.fine) continue;
      work.steps.resize(in.get_byte());
      for (ivy::Step& step : work.steps) {
        Value unused;
        bool unused_too;
        step.kind = static_cast<ivy::Step::Kind>(in.get_byte());
        step.message = unpack_message(in.get<std::uint64_t>(), &unused, &unused_too);
      }
    }
  }
  const unsigned count = in.get_byte();
  for (unsigned i = 0; i < count; ++i) {
    InFlight flight;
    flight.message = unpack_message(in.get<std::uint64_t>(), &flight.contents, &flight.repeated);
    in_flight_.push_back(flight);
  }
  last_value_ = kStale;
}

}  // namespace xenspan::dsm::sim
