#include "dom0-daemon/hypervisor/usermode/stream_line.h"

#include <cerrno>

namespace xenspan::hypervisor::usermode {

int send_frame(dsm::tcp::SecureStream& stream, const FrameHeader& header, const Packet& payload) {
  FrameHeader sent = header;
  sent.bytes = static_cast<std::uint32_t>(payload.size());
  const iovec pieces[2] = {{&sent, sizeof sent},
                           {const_cast<std::uint8_t*>(payload.data()), payload.size()}};
  return stream.writev(pieces, payload.empty() ? 1 : 2);
}

int receive_frame(dsm::tcp::SecureStream& stream, FrameHeader& header, Packet& payload) {
  if (const int error = stream.read_exact(&header, sizeof header); error != 0) return error;
  if (header.bytes > kMaxFrame || header.reserved != 0) return EMSGSIZE;
  payload.resize(header.bytes);
  return header.bytes == 0 ? 0 : stream.read_exact(payload.data(), header.bytes);
}

bool StreamLine::call(Op op, std::uint64_t signal_mask, const Packet& request, Packet& answer) {
  FrameHeader header;
  header.op = op;
  header.signal_mask = signal_mask;
  if (send_frame(*stream_, header, request) != 0) return false;
  stream_->look(dsm::kVcpuPatience);
  FrameHeader back;
  return receive_frame(*stream_, back, answer) == 0 && back.op == op;
}

}  // namespace xenspan::hypervisor::usermode
