#include "tests/sim/explorer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace xenspan::dsm::sim {
namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint64_t fingerprint(const Bytes& bytes) {
  std::uint64_t hash = 0x9e3779b97f4a7c15 ^ bytes.size();
  const auto mix = [&](std::uint64_t x) {
    hash = (hash ^ x) * 0xff51afd7ed558ccd;
    hash ^= hash >> 32;
  };
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    mix(word);
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, bytes.data() + at, bytes.size() - at);
  mix(rest);
  hash = (hash ^ (hash >> 29)) * 0xc4ceb9fe1a85ec53;
  return (hash ^ (hash >> 33)) | 1;  // 0 is an empty place
}

// Memory in huge pages where the kernel has them: a table that is read at random waits for the
// translation of addresses more than for memory otherwise.
template <typename T>
struct HugePages {
  using value_type = T;
  static constexpr std::size_t kHuge = std::size_t{2} << 20;

  HugePages() = default;
  template <typename Other>
  explicit HugePages(const HugePages<Other>&) {}
  T* allocate(std::size_t count) {
    const std::size_t size = (count * sizeof(T) + kHuge - 1) / kHuge * kHuge;
    void* const memory = std::aligned_alloc(kHuge, size);
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, size, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { std::free(memory); }
  friend bool operator==(HugePages, HugePages) { return true; }
};

// Open addressing, grows by doubling.
class FingerprintSet {
 public:
  FingerprintSet() : table_(1 << 16) {}
  bool insert(std::uint64_t value) {
    if (2 * (count_ + 1) > table_.size()) grow();
    return insert_into(table_, value) && ++count_;
  }
  // It will be inserted soon: most of the time of an insertion is the wait for memory.
  void expect(std::uint64_t value) const {
    __builtin_prefetch(&table_[(value >> 1) & (table_.size() - 1)]);
  }

 private:
  using Table = std::vector<std::uint64_t, HugePages<std::uint64_t>>;
  static bool insert_into(Table& table, std::uint64_t value) {
    for (std::size_t at = (value >> 1) & (table.size() - 1);; at = (at + 1) & (table.size() - 1)) {
      if (table[at] == value) return false;
      if (table[at] != 0) continue;
      table[at] = value;
      return true;
    }
  }
  void grow() {
    Table larger(table_.size() * 2);
    for (std::uint64_t value : table_) {
      if (value != 0) insert_into(larger, value);
    }
    table_ = std::move(larger);
  }
  Table table_;
  std::size_t count_ = 0;
};

class Explorer {
 public:
  Explorer(const Shape& shape, std::uint64_t limit) : shape_(shape), limit_(limit) {}

  Exploration run() {
    system_.reset(shape_);
    reached_.resize(1);
    reach(reached_[0], Event{});
    remember(0, reached_[0]);
    for (std::uint32_t index = 0; index < steps_.size() && found_.violation.empty(); ++index) {
      if (frontier_at_ == frontier_.size()) {  // the next level
        frontier_.swap(next_level_);
        next_level_.clear();
        frontier_at_ = 0;
      }
      const Bytes state = std::move(frontier_[frontier_at_++]);
      expand(index, state);
    }
    found_.states = steps_.size();
    return std::move(found_);
  }

 private:
  struct StepTo {
    std::uint32_t parent;
    Event event;
  };

  struct Reached {
    Event event;
    Bytes state;
    std::uint64_t fingerprint;
  };

  // The state that the system is in now.
  void reach(Reached& reached, const Event& event) {
    reached.event = event;
    system_.pack(reached.state);
    reached.fingerprint = fingerprint(reached.state);
    seen_.expect(reached.fingerprint);
  }

  void remember(std::uint32_t parent, const Reached& reached) {
    if (!seen_.insert(reached.fingerprint)) return;
    if (steps_.size() >= limit_) {
      found_.complete = false;
      return;
    }
    steps_.push_back({parent, reached.event});
    next_level_.push_back(reached.state);
  }

  void expand(std::uint32_t index, const Bytes& state) {
    system_.unpack(shape_, state);
    check_quiet_pages();
    events_.clear();
    system_.list_events(events_);
    if (system_.violation() == nullptr && events_.empty()) {
      if (system_.stopped()) {
        ++found_.stopped;
      } else if (system_.finished() && (!shape_.survive || system_.whole())) {
        ++found_.ends;
      } else if (system_.crashed() && !shape_.survive) {
        ++found_.stopped;
      } else {
        report(index, nullptr, "deadlock: a vCPU waits for ever");
      }
    }
    if (system_.violation() != nullptr) report(index, nullptr, system_.violation());
    if (!found_.violation.empty()) return;
    if (reached_.size() < events_.size()) reached_.resize(events_.size());
    for (std::size_t i = 0; i < events_.size(); ++i) {
      system_.unpack(shape_, state);
      system_.run(events_[i]);
      ++found_.transitions;
      if (system_.violation() != nullptr) return report(index, &events_[i], system_.violation());
      reach(reached_[i], events_[i]);
    }
    for (std::size_t i = 0; i < events_.size(); ++i) remember(index, reached_[i]);
  }

  void check_quiet_pages() {
    for (unsigned page = 0; page < shape_.pages && system_.whole(); ++page) {
      if (system_.page_is_quiet(page)) system_.check_directory(page);
    }
  }

  // Plays the way from the start again, in words.
  void report(std::uint32_t index, const Event* last, const char* violation) {
    if (!found_.violation.empty()) return;
    found_.violation = violation;
    std::vector<Event> way;
    if (last != nullptr) way.push_back(*last);
    for (; index != 0; index = steps_[index].parent) way.push_back(steps_[index].event);
    system_.reset(shape_);
    Bytes state;
    for (auto event = way.rbegin(); event != way.rend(); ++event) {
      system_.pack(state);
      system_.unpack(shape_, state);
      found_.trace += "  " + system_.describe(*event) + "\n";
      system_.run(*event);
    }
    found_.trace += system_.describe_state();
  }

  Shape shape_;
  std::uint64_t limit_;
  System system_;
  FingerprintSet seen_;
  std::vector<StepTo> steps_;  // how each state was first reached
  std::vector<Bytes> frontier_, next_level_;
  std::size_t frontier_at_ = 0;
  std::vector<Event> events_;
  std::vector<Reached> reached_;  // by events_
  Exploration found_;
};

}  // namespace

Exploration explore(const Shape& shape, std::uint64_t limit) {
  return Explorer(shape, limit).run();
}

}  // namespace xenspan::dsm::sim
