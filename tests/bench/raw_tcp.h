// RawTcp: the floor that a remote page fault is measured against: plain TCP round trips between two
// network namespaces, by a client in this process and a server process of its own, with the socket
// options, cores, priorities and waiting policy that the two ends of a slice have.
//
// For the benchmark program's one thread. Owns the server process and the client thread's socket.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dsm-rdma/patience.h"

namespace xenspan::bench {

struct RawEnd {
  std::string netns;    // name below /run/netns
  std::string address;  // IPv4, used for the server
  int core = 0;
};

struct WaitingPolicy {
  dsm::PatienceLimits client{};  // before sleeping
  unsigned server_spin_us = 0;
  int server_priority = 0;  // SCHED_FIFO; 0: ordinary
};

class RawTcp {
 public:
  static Result<RawTcp> start(const RawEnd& client, const RawEnd& server,
                              const WaitingPolicy& policy);
  RawTcp(RawTcp&& other) noexcept;
  RawTcp& operator=(RawTcp&&) = delete;
  ~RawTcp();

  // `count` round trips of 64 bytes there and `answer_bytes` (at most kMostAnswer) back:
  // nanoseconds each.
  static constexpr std::size_t kMostAnswer = 1 << 30;
  Result<std::vector<double>> round_trips(std::size_t count, std::size_t answer_bytes);

 private:
  RawTcp() = default;

  pid_t server_ = -1;
  UniqueFd socket_;
  int core_ = 0;
  dsm::PatienceLimits patience_{};
};

}  // namespace xenspan::bench
