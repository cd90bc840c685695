// dsm-rdma/transport/tcp/connection.h: a byte stream of an authenticated peer, cut into messages
// and pages. The stream is a real SecureStream on a pair of sockets; bytes come in pieces of any
// size. What is delivered is from that peer, for this host, of a kind the lane carries, and each
// page is whole and in its frame before its grant.
//
// Input: kind of lane, seed of the pieces' sizes, then the bytes.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "dsm-rdma/transport/tcp/connection.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"

namespace xenspan::dsm::tcp {
namespace {

constexpr HostId kSelf = 1, kPeer = 2;
constexpr wire::Bounds kBounds{3, 4, 16, 1};

// Holds what is delivered against the bytes that were sent.
class Checker final : public Sink {
 public:
  explicit Checker(std::string_view sent) : sent_(sent) {}

  std::byte* place(const ivy::Message& grant) noexcept override {
    DEMAND(grant.kind == ivy::Kind::kGrant && grant.payload == ivy::Payload::kPage);
    DEMAND(grant.gfn < kBounds.pages && !waiting_);
    if (grant.txn == 13) return nullptr;  // as an engine that did not ask for it
    waiting_ = true;
    frame_.fill(std::byte{0});
    return frame_.data();
  }
  bool deliver(const ivy::Message& message) noexcept override {
    DEMAND(message.from == kPeer && message.to == kSelf);
    DEMAND(message.gfn < kBounds.pages || ivy::is_about_slot(message.kind));
    if (delivered_ == run_.count) {
      std::byte bytes[wire::kMessageBytes];
      DEMAND(at_ + sizeof bytes <= sent_.size());
      std::memcpy(bytes, sent_.data() + at_, sizeof bytes);
      DEMAND(wire::decode(bytes, kBounds, run_) == nullptr);
      delivered_ = 0;
      at_ += sizeof bytes;
    }
    DEMAND(message == run_.at(delivered_++));
    DEMAND(waiting_ == (message.payload == ivy::Payload::kPage));
    if (waiting_) {
      DEMAND(at_ + kPageSize <= sent_.size());
      DEMAND(std::memcmp(frame_.data(), sent_.data() + at_, kPageSize) == 0);
      at_ += kPageSize;
    }
    waiting_ = false;
    return message.txn != 14;  // as an engine that knows the message is wrong
  }
  // Nothing is left behind in the middle of a page.
  void flush() noexcept override { DEMAND(at_ <= sent_.size()); }
  bool between_messages() const { return delivered_ == run_.count; }
  void peer_lost(HostId, const char*) noexcept override {}

 private:
  std::string_view sent_;
  std::size_t at_ = 0;
  wire::Run run_;  // the one that messages are delivered of, and how many were
  unsigned delivered_ = 1;
  bool waiting_ = false;
  std::array<std::byte, kPageSize> frame_{};
};

void run(fuzz::Bytes& in) {
  const auto kind = in.take<std::uint8_t>();
  std::uint32_t random = in.take<std::uint8_t>();
  std::string_view left = in.rest();
  int ends[2];
  DEMAND(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  const UniqueFd sender(ends[1]);
  const Lane lane = kind % 3 == 0 ? kServiceLane : Lane{2};
  const std::atomic<Epoch> epoch{kBounds.epoch};
  Connection connection(std::make_unique<SecureStream>(UniqueFd(ends[0]), nullptr, StreamId{}),
                        kSelf, kPeer, lane, kind % 2 == 0, kBounds, epoch);
  Checker checker(left);
  for (const char* why = nullptr;;) {
    random = random * 1664525u + 1013904223u;
    const std::size_t piece = std::min<std::size_t>(left.size(), (random >> 16) % 6000 + 1);
    if (piece == 0) ::shutdown(sender.get(), SHUT_WR);
    if (piece > 0) DEMAND(::write(sender.get(), left.data(), piece) == static_cast<ssize_t>(piece));
    left.remove_prefix(piece);
    Connection::Outcome outcome;
    while ((outcome = connection.receive(checker, &why)) == Connection::Outcome::kSome) {
    }
    DEMAND(outcome == Connection::Outcome::kLost || checker.between_messages());
    if (outcome == Connection::Outcome::kLost) {
      DEMAND(why != nullptr && *why != '\0');
      return;
    }
    DEMAND(piece > 0);  // the end of the stream is an end
  }
}

}  // namespace
}  // namespace xenspan::dsm::tcp

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  xenspan::fuzz::Bytes in(data, size);
  xenspan::dsm::tcp::run(in);
  return 0;
}
