// Frames on an authenticated stream between two slices, and the line of a remote guest thread that
// is made of them. Threading: one request at a time; the caller sees to it.
#pragma once

#include <memory>

#include "dom0-daemon/hypervisor/usermode/line.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"

namespace xenspan::hypervisor::usermode {

// 0 or an errno. receive_frame refuses frames above kMaxFrame (EMSGSIZE).
int send_frame(dsm::tcp::SecureStream& stream, const FrameHeader& header, const Packet& payload);
int receive_frame(dsm::tcp::SecureStream& stream, FrameHeader& header, Packet& payload);

class StreamLine final : public Line {
 public:
  explicit StreamLine(std::unique_ptr<dsm::tcp::SecureStream> stream)
      : stream_(std::move(stream)) {}
  bool call(Op op, std::uint64_t signal_mask, const Packet& request, Packet& answer) override;

 private:
  std::unique_ptr<dsm::tcp::SecureStream> stream_;
};

}  // namespace xenspan::hypervisor::usermode
