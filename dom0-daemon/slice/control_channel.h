// The worker's end of the socket to xenspand: JSON objects in packets, descriptors beside them (see
// control.md).
//
// Threading: receive() from the main thread, send() from any. Ownership: owns the socket.
#pragma once

#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace xenspan::slice {

class ControlChannel {
 public:
  explicit ControlChannel(UniqueFd socket);
  int fd() const { return socket_.get(); }

  struct Packet {
    nlohmann::json body;
    std::vector<UniqueFd> descriptors;
  };
  // The next packet; error when the daemon has gone (EPIPE) or sent nonsense (EPROTO). Blocks.
  Result<Packet> receive();
  void send(const nlohmann::json& event);

 private:
  UniqueFd socket_;
  std::mutex lock_;
};

}  // namespace xenspan::slice
