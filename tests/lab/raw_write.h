// The baseline of a remote read fault: 4096 bytes by RDMA write to and fro, which is two of what
// ib_write_lat measures, between two processes and beside the engine in them.
//
// It waits as the engine's transport does (polls its completion queue for so long, then sleeps on
// its channel), so that both find the machines alike. Each write carries an immediate, which wakes
// the sleeper. One queue pair; one thread asks, one thread on the other host answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dsm-rdma/transport/verbs/device.h"
#include "dsm-rdma/transport/verbs/waiter.h"

namespace xenspan::dsm {

class RawWrite {
 public:
  // One of the two listens. Blocks until both are connected.
  static Result<std::unique_ptr<RawWrite>> open(const std::string& own, const std::string& peer,
                                                bool listens, unsigned spin_us);
  ~RawWrite();

  // Nanoseconds of each of `count` round trips; fewer when the peer is gone.
  std::vector<std::uint64_t> round_trips(unsigned count);
  void tell_to_end();
  // Answers until told to end.
  void answer();

 private:
  static constexpr unsigned kReceives = 64, kBytes = 4096, kEnd = 1;

  explicit RawWrite(unsigned spin_us) : spin_ns_(std::uint64_t{spin_us} * 1000) {}
  Status connect(const std::string& own, const std::string& peer, bool listens);
  Status make();
  Status bring_up();
  bool post_receive();
  bool write(std::uint32_t immediate);
  // The immediate of the next write that arrives; negative: the connection has failed.
  std::int64_t next();
  bool take(std::int64_t& immediate);

  const std::uint64_t spin_ns_;
  UniqueFd socket_;
  std::unique_ptr<verbs::Device> device_;
  std::byte* memory_ = nullptr;  // what is sent, what arrives
  verbs::Handle<ibv_mr> region_;
  verbs::Waiter waiter_;
  verbs::Handle<ibv_cq> sends_;
  verbs::Handle<ibv_qp> queue_;
  std::uint64_t peer_address_ = 0;
  std::uint32_t peer_key_ = 0;
};

}  // namespace xenspan::dsm
