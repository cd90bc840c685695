// What the engine and its TCP transport add to the wire, without a hypervisor: latency of faults
// between two engines in one process over loopback, on a backend of plain memory, beside a raw TCP
// exchange with the same socket options and the same way of waiting, interleaved. One JSON object a
// line. Usage: raw_engine [PAGES [WAIT_SPIN_US [SERVE_SPIN_US [encrypt]]]]
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstdlib>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/slot_table.h"
#include "dsm-rdma/wire.h"
#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm {
namespace {

// Two connected sockets; the far one is served by a thread that answers 64 bytes with `answer`
// bytes.
class RawPeer {
 public:
  RawPeer(std::size_t answer, unsigned wait_spin_us)
      : answer_(answer), spin_ns_(wait_spin_us * 1000ull) {
    std::uint16_t port;
    const UniqueFd listening = test::listen_on_loopback(port);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    near_.reset(::socket(AF_INET, SOCK_STREAM, 0));
    if (::connect(near_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      std::abort();
    far_.reset(::accept(listening.get(), nullptr, nullptr));
    const int on = 1;
    for (const UniqueFd* fd : {&near_, &far_})
      ::setsockopt(fd->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_.reset(::epoll_create1(0));
    near_epoll_.reset(::epoll_create1(0));
    watch(epoll_.get(), far_.get());
    watch(near_epoll_.get(), near_.get());
    server_ = std::thread([this] { serve(); });
    test::make_realtime(server_, 0);
  }
  ~RawPeer() {
    ::shutdown(near_.get(), SHUT_RDWR);
    server_.join();
  }
  void exchange() {
    char buffer[8192] = {};
    if (::send(near_.get(), buffer, 64, 0) != 64) std::abort();
    std::uint64_t sleep_at = now_ns() + spin_ns_;
    for (std::size_t got = 0; got < answer_;) {
      const ssize_t more = ::recv(near_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (more > 0) {
        got += static_cast<std::size_t>(more);
      } else if (now_ns() >= sleep_at) {
        epoll_event event;
        ::epoll_wait(near_epoll_.get(), &event, 1, -1);
        sleep_at = now_ns() + spin_ns_;
      }
    }
  }

 private:
  static void watch(int epoll, int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
  void serve() {
    char buffer[8192] = {};
    for (;;) {
      epoll_event event;
      if (::epoll_wait(epoll_.get(), &event, 1, -1) != 1) continue;
      if (::recv(far_.get(), buffer, sizeof buffer, MSG_DONTWAIT) <= 0) return;
      if (::send(far_.get(), buffer, answer_, MSG_NOSIGNAL) < 0) return;
    }
  }

  const std::size_t answer_;
  const std::uint64_t spin_ns_;
  UniqueFd near_, far_, epoll_, near_epoll_;
  std::thread server_;
};

// Nothing of the last exchange is to be under way in the next: reports and timers come up to a hold
// window later.
void settle() {
  const std::uint64_t until = now_ns() + 100'000;
  while (now_ns() < until) cpu_pause();
}

struct Samples {
  std::vector<std::uint64_t> ns;
  template <typename Action>
  void time(Action action) {
    settle();
    const std::uint64_t start = now_ns();
    action();
    ns.push_back(now_ns() - start);
  }
  double at(double share) {
    std::sort(ns.begin(), ns.end());
    return ns.empty()
               ? 0
               : static_cast<double>(
                     ns[static_cast<std::size_t>(share * static_cast<double>(ns.size() - 1))]) /
                     1000;
  }
};

void print(const char* bench, Samples& samples, Samples& baseline) {
  fmt::print(
      "{{\"bench\":\"{}\",\"unit\":\"us\",\"median\":{:.2f},\"p99\":{:.2f},\"baseline\":{:.2f},"
      "\"ratio\":{:.2f}}}\n",
      bench, samples.at(0.5), samples.at(0.99), baseline.at(0.5),
      samples.at(0.5) / baseline.at(0.5));
}

int run(Gfn pages, const test::ClusterOptions& options) {
  test::Cluster cluster(options);
  if (!cluster.failure().empty()) {
    fmt::print(stderr, "raw_engine: {}\n", cluster.failure());
    return 1;
  }
  test::pin_to(::pthread_self(), 1);  // host 1's core; its peers' threads are on the other one
  const SlotTable slots(2);
  RawPeer page_peer(wire::kMessageBytes + kPageSize, options.wait_spin_us),
      small_peer(64, options.wait_spin_us);
  Samples raw_page, raw_small, read[2], upgrade[2], write[2];
  for (Gfn gfn = 0; gfn < pages; ++gfn) cluster.store(0, gfn, gfn + 1);
  for (Gfn gfn = 0; gfn < pages; ++gfn) {
    const HostId manager = slots.manager(gfn);
    raw_page.time([&] { page_peer.exchange(); });
    read[manager].time([&] { cluster.engine(1).acquire(gfn, Right::kShared, {0, 0, 8}); });
    raw_small.time([&] { small_peer.exchange(); });
    upgrade[manager].time([&] { cluster.engine(1).acquire(gfn, Right::kExclusive, {0, 0, 8}); });
  }
  for (Gfn gfn = 0; gfn < pages; ++gfn) cluster.store(0, gfn, gfn + 1);
  for (Gfn gfn = 0; gfn < pages; ++gfn) {
    raw_page.time([&] { page_peer.exchange(); });
    write[slots.manager(gfn)].time([&] {
      cluster.engine(1).acquire(gfn, Right::kExclusive, {0, 0, 8});
    });
  }
  print("engine.read.manager_is_owner", read[0], raw_page);
  print("engine.read.manager_is_requester", read[1], raw_page);
  print("engine.write.manager_is_owner", write[0], raw_page);
  print("engine.write.manager_is_requester", write[1], raw_page);
  print("engine.upgrade.manager_is_holder", upgrade[0], raw_small);
  print("engine.upgrade.manager_is_requester", upgrade[1], raw_small);
  return 0;
}

}  // namespace
}  // namespace xenspan::dsm

int main(int count, char** arguments) {
  xenspan::dsm::test::ClusterOptions options;
  options.pages = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 4000;
  if (count > 2) options.wait_spin_us = static_cast<unsigned>(std::atoi(arguments[2]));
  if (count > 3) options.serve_spin_us = static_cast<unsigned>(std::atoi(arguments[3]));
  options.realtime = true;
  options.encrypt = count > 4 && std::string(arguments[4]) == "encrypt";
  return xenspan::dsm::run(options.pages, options);
}
