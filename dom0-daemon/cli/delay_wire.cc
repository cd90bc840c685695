#include "dom0-daemon/cli/delay_wire.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <deque>
#include <map>

#include "base/unique_fd.h"
#include "dsm-rdma/futex_lock.h"

namespace xenspan::cli {
namespace {

constexpr std::size_t kMaxFrame = 9000 + 18;  // the bed's MTU and an Ethernet header with a tag
// What may be under way from one host; more is lost, as on a real wire with a full queue.
constexpr std::size_t kMostFrames = 65536;
constexpr int kPriority = 60;  // above the slices' service threads (50)
using Address = std::array<unsigned char, 6>;

struct Unit {
  const char* name;
  double factor;
};

Result<std::uint64_t> parse(const std::string& text, std::initializer_list<Unit> units,
                            const char* what, const char* example) {
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  for (const Unit& unit : units) {
    if (error != std::errc{} || number < 0 || std::string_view(rest) != unit.name) continue;
    if (number * unit.factor < 1e15) return static_cast<std::uint64_t>(number * unit.factor);
  }
  return Error{EINVAL,
               fmt::format("{} \"{}\": use a number and a unit, as {}", what, text, example)};
}

// A TAP device eth0 in the namespace; this thread comes back to its own.
Result<UniqueFd> make_tap(const std::string& space) {
  const UniqueFd own(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const UniqueFd other(open(("/run/netns/" + space).c_str(), O_RDONLY | O_CLOEXEC));
  if (!own || !other || setns(other.get(), CLONE_NEWNET) != 0)
    return system_error(errno, "cannot enter the network namespace " + space);
  UniqueFd tap(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq request{};
  std::strncpy(request.ifr_name, "eth0", IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  const bool made = tap && ioctl(tap.get(), TUNSETIFF, &request) == 0;
  const int error = errno;
  if (setns(own.get(), CLONE_NEWNET) != 0)
    return system_error(errno, "cannot leave the network namespace " + space);
  if (!made)
    return system_error(error, "cannot make a TAP device in " + space,
                        "the kernel needs TUN/TAP (CONFIG_TUN)");
  return tap;
}

class Switch {
 public:
  explicit Switch(const DelayWire& wire) : wire_(wire) {}

  Status prepare() {
    epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
    for (const std::string& space : wire_.spaces) {
      auto tap = make_tap(space);
      if (!tap) return tap.error();
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.u64 = ports_.size();
      if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, tap->get(), &event) != 0)
        return system_error(errno, "cannot watch the wire's ends");
      ports_.push_back({std::move(*tap), {}, 0});
    }
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, nullptr);
    signals_.reset(signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kSignal;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, signals_.get(), &event) != 0)
      return system_error(errno, "cannot watch for the end");
    return {};
  }

  void run() {
    for (;;) {
      std::array<epoll_event, 32> events;
      const std::int64_t wait = deliver_due();
      const timespec timeout{wait / 1'000'000'000, wait % 1'000'000'000};
      const int count = epoll_pwait2(epoll_.get(), events.data(), events.size(),
                                     wait < 0 ? nullptr : &timeout, nullptr);
      for (int i = 0; i < count; ++i) {
        if (events[i].data.u64 == kSignal) return;
        take_in(events[i].data.u64);
      }
    }
  }

 private:
  static constexpr std::uint64_t kSignal = ~std::uint64_t{0};
  struct Frame {
    std::uint64_t due_ns;
    std::vector<char> bytes;
  };
  struct Port {
    UniqueFd tap;
    std::deque<Frame> under_way;  // from this port; due times grow
    std::uint64_t free_ns;        // when the host may send again (rate)
  };

  void take_in(std::size_t from) {
    Port& port = ports_[from];
    for (ssize_t size; (size = read(port.tap.get(), buffer_, sizeof buffer_)) >= 14;) {
      Address sender;
      std::memcpy(sender.data(), buffer_ + 6, sender.size());
      places_[sender] = from;
      if (port.under_way.size() >= kMostFrames) continue;
      const std::uint64_t now = dsm::now_ns();
      std::uint64_t sent = now;
      if (wire_.rate != 0) {
        sent = std::max(now, port.free_ns) +
               static_cast<std::uint64_t>(size) * 8 * 1'000'000'000 / wire_.rate;
        port.free_ns = sent;
      }
      port.under_way.push_back({sent + wire_.delay_ns, {buffer_, buffer_ + size}});
    }
  }

  // Nanoseconds until the next frame is due, or -1.
  std::int64_t deliver_due() {
    std::int64_t wait = -1;
    for (std::size_t from = 0; from < ports_.size(); ++from) {
      std::deque<Frame>& under_way = ports_[from].under_way;
      while (!under_way.empty()) {
        const std::uint64_t now = dsm::now_ns(), due = under_way.front().due_ns;
        if (due > now) {
          const auto left = static_cast<std::int64_t>(due - now);
          wait = wait < 0 ? left : std::min(wait, left);
          break;
        }
        put_out(from, under_way.front().bytes);
        under_way.pop_front();
      }
    }
    return wait;
  }

  void put_out(std::size_t from, const std::vector<char>& frame) {
    Address receiver;
    std::memcpy(receiver.data(), frame.data(), receiver.size());
    const auto known = places_.find(receiver);
    for (std::size_t to = 0; to < ports_.size(); ++to) {
      if (to == from || (known != places_.end() && known->second != to)) continue;
      // A host whose interface is down does not hear it.
      [[maybe_unused]] const ssize_t written =
          write(ports_[to].tap.get(), frame.data(), frame.size());
    }
  }

  const DelayWire& wire_;
  std::vector<Port> ports_;
  std::map<Address, std::size_t> places_;  // behind which port an address was seen
  UniqueFd epoll_, signals_;
  char buffer_[kMaxFrame];
};

}  // namespace

Result<std::uint64_t> parse_delay(const std::string& text) {
  return parse(text, {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}}, "delay", "50us");
}

Result<std::uint64_t> parse_rate(const std::string& text) {
  return parse(text, {{"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}}, "rate", "10gbit");
}

Status run_delay_wire(const DelayWire& wire, const std::string& ready) {
  Switch joined(wire);
  if (Status prepared = joined.prepare(); !prepared) return prepared;
  const sched_param priority{.sched_priority = kPriority};
  if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0)
    return system_error(errno, "cannot give the wire a real-time priority");
  const UniqueFd mark(open(ready.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (!mark) return system_error(errno, "cannot write " + ready);
  joined.run();
  return {};
}

}  // namespace xenspan::cli
