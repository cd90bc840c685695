// What the slices of a domain under Xen tell each other beside pages: vCPUs on their way, and
// interrupts.
//
// One stream from each slice to each other; a slice writes on its own and reads on theirs, so
// nothing is answered on the stream it came by. Threading: all calls from any thread; the handler
// is called from one thread for each sender, in the order sent. A stream that ends is not told of:
// the engine's own connection ends with it and says so. Ownership: the acceptor is borrowed and
// outlives it; reading threads are detached and end with the stream.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"

namespace xenspan::slice {

class XenLines {
 public:
  enum class Kind : std::uint32_t {
    kInterrupt = 1,  // `value` is its vector
    kVcpu,           // `bytes` is its state (put_vcpu); `value` 1: it comes back
    kVcpuIsThere,    // what the home hears when it was put
    kRun,            // the home's order to let the vCPUs run; `bytes`: pages that stay home
    kRefused,        // `bytes` is the sentence
    kExpect,         // the home: a vCPU will come (xen_moves.h has these)
    kExpected,       // the answer
    kGive,           // the home: send it to host `value`
    kPlace,          // the home: it is on host `value` now
    kMark,           // the home: send host `value` a kMarker, after all that you have sent there
    kMarker,         // to whom no vCPU is sent any more; it tells the home
    kMarked,         // that
    kStops,          // a slice stops the domain; `bytes` is the cause, which the home tells
    kStopsHeard,     // the home has
  };
  struct Message {
    dsm::HostId from = 0;
    Kind kind = Kind::kInterrupt;
    std::uint32_t vcpu = 0;
    std::uint64_t value = 0;
    std::vector<std::byte> bytes;
  };
  struct Config {
    dsm::HostId self = 0;
    std::vector<std::string> addresses;  // an empty one: nobody's
    std::vector<std::uint16_t> ports;
    dsm::tcp::Secret secret{};
    bool encrypt = false;
    std::function<void(Message)> handle;
  };

  // Takes the others' streams from now on, and opens its own. Blocks.
  static Result<std::unique_ptr<XenLines>> open(dsm::tcp::Acceptor& acceptor, Config config);
  // A host joins: a stream to it. Blocks. Its own is taken at any time.
  Status add_peer(dsm::HostId host, const std::string& address, std::uint16_t port);
  void remove_peer(dsm::HostId host);
  std::vector<dsm::HostId> peers() const;
  // 0 or an errno. No allocation.
  int send(dsm::HostId to, Kind kind, std::uint32_t vcpu, std::uint64_t value,
           std::span<const std::byte> bytes = {}) noexcept;

 private:
  explicit XenLines(Config config) : config_(std::move(config)) {}
  void read(dsm::tcp::SecureStream& stream);

  const Config config_;
  std::array<std::atomic<std::shared_ptr<dsm::tcp::SecureStream>>, dsm::kMaxHosts> to_;
};

}  // namespace xenspan::slice
