#include "dom0-daemon/slice/xen_lines.h"

#include <cerrno>
#include <thread>

#include "base/log.h"

namespace xenspan::slice {
namespace {

constexpr std::uint8_t kXenPurpose = 3;         // usermode/home_ops.h has 1 and 2
constexpr std::uint32_t kMostBytes = 64 << 10;  // a vCPU's state is some 3 KiB
constexpr int kConnectMs = 60'000;

struct Header {
  std::uint32_t kind, vcpu;
  std::uint64_t value;
  std::uint32_t bytes, reserved;
};
static_assert(sizeof(Header) == 24);

}  // namespace

Result<std::unique_ptr<XenLines>> XenLines::open(dsm::tcp::Acceptor& acceptor, Config config) {
  std::unique_ptr<XenLines> lines(new XenLines(std::move(config)));
  const Config& known = lines->config_;
  acceptor.set_handler(kXenPurpose,
                       [lines = lines.get()](std::unique_ptr<dsm::tcp::SecureStream> stream) {
                         auto shared = std::shared_ptr<dsm::tcp::SecureStream>(std::move(stream));
                         std::thread([lines, shared] { lines->read(*shared); }).detach();
                         return true;
                       });
  for (dsm::HostId host = 0; host < known.addresses.size(); ++host) {
    if (host == known.self || known.addresses[host].empty()) continue;
    if (Status added = lines->add_peer(host, known.addresses[host], known.ports[host]); !added)
      return added.error();
  }
  return lines;
}

Status XenLines::add_peer(dsm::HostId host, const std::string& address, std::uint16_t port) {
  dsm::tcp::ConnectOptions options;
  options.address = address;
  options.port = port;
  options.secret = config_.secret;
  options.self = config_.self;
  options.peer = host;
  options.purpose = kXenPurpose;
  options.encrypt = config_.encrypt;
  options.timeout_ms = kConnectMs;
  auto stream = dsm::tcp::connect_stream(options);
  if (!stream) return stream.error();
  to_[host].store(std::move(*stream));
  return {};
}

void XenLines::remove_peer(dsm::HostId host) { to_[host].store(nullptr); }

std::vector<dsm::HostId> XenLines::peers() const {
  std::vector<dsm::HostId> hosts;
  for (dsm::HostId host = 0; host < to_.size(); ++host)
    if (to_[host].load() != nullptr) hosts.push_back(host);
  return hosts;
}

int XenLines::send(dsm::HostId to, Kind kind, std::uint32_t vcpu, std::uint64_t value,
                   std::span<const std::byte> bytes) noexcept {
  const auto stream = to < to_.size() ? to_[to].load() : nullptr;
  if (stream == nullptr) return EINVAL;
  Header header{static_cast<std::uint32_t>(kind), vcpu, value,
                static_cast<std::uint32_t>(bytes.size()), 0};
  const iovec pieces[] = {{&header, sizeof header},
                          {const_cast<std::byte*>(bytes.data()), bytes.size()}};
  return stream->writev(pieces, bytes.empty() ? 1 : 2);
}

void XenLines::read(dsm::tcp::SecureStream& stream) {
  for (Header header; stream.read_exact(&header, sizeof header) == 0;) {
    if (header.bytes > kMostBytes) {
      log::error("a slice sent {} bytes at once: its line is closed", header.bytes);
      return;
    }
    Message message{stream.id().from, static_cast<Kind>(header.kind), header.vcpu, header.value,
                    std::vector<std::byte>(header.bytes)};
    if (stream.read_exact(message.bytes.data(), message.bytes.size()) != 0) return;
    config_.handle(std::move(message));
  }
}

}  // namespace xenspan::slice
