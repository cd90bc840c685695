#include "dsm-rdma/transport/tcp/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace xenspan::dsm::tcp {
namespace {

const char* phrase_for(long error) noexcept {
  switch (error) {
    case EPIPE: return "it has closed its connection";
    case ECONNRESET: return "its connection was reset";
    case ETIMEDOUT: return "it does not answer any more";
    case EHOSTUNREACH:
    case ENETUNREACH: return "the network does not reach it any more";
    default: return "its connection failed";
  }
}

}  // namespace

Connection::Connection(std::unique_ptr<SecureStream> stream, HostId self, HostId peer, Lane lane,
                       bool own, const wire::Bounds& bounds)
    : stream_(std::move(stream)),
      end_{self, peer, lane, own},
      bounds_(bounds),
      buffer_bytes_(!own                   ? kRequestsBytes
                    : lane == kServiceLane ? kStreamBytes
                                           : kAnswersBytes),
      // Memory that no message has needed yet stays untouched.
      buffer_(std::make_unique_for_overwrite<std::byte[]>(buffer_bytes_)) {}

const char* Connection::finish_page(Sink& sink) noexcept {
  page_ = nullptr;
  page_filled_ = 0;
  traffic_.received(1, 1, 0);
  return sink.deliver(message_) ? nullptr : "it sent a message that breaks the protocol";
}

// Delivers every whole message in the buffer; nullptr, or why the peer is not to be listened to any
// more.
const char* Connection::parse(Sink& sink) noexcept {
  Incoming together[kMostTogether];
  std::size_t at = 0, count = 0, pages = 0;
  const char* wrong = nullptr;
  const auto deliver = [&] {
    if (count == 0) return;
    traffic_.received(count, pages, 0);
    if (!sink.deliver_several(together, count) && wrong == nullptr)
      wrong = "it sent a message that breaks the protocol";
    count = pages = 0;
  };
  while (wrong == nullptr && page_ == nullptr && filled_ - at >= wire::kMessageBytes) {
    wrong = wire::decode(buffer_.get() + at, bounds_, message_);
    if (wrong == nullptr) wrong = end_.check(message_);
    if (wrong != nullptr) break;
    at += wire::kMessageBytes;
    const bool page = message_.payload == ivy::Payload::kPage;
    if (page && filled_ - at < kPageSize) {
      deliver();
      if (wrong != nullptr) break;
      page_ = sink.place(message_);
      if (page_ == nullptr) return "it sent a page that nobody asked for";
      page_filled_ = filled_ - at;
      std::memcpy(page_, buffer_.get() + at, page_filled_);
      at += page_filled_;
      break;
    }
    together[count++] = {message_, page ? buffer_.get() + at : nullptr};
    if (page) at += kPageSize, ++pages;
    if (count == kMostTogether) deliver();
  }
  deliver();
  filled_ -= at;
  if (filled_ > 0 && at > 0) std::memmove(buffer_.get(), buffer_.get() + at, filled_);
  return wrong;
}

// A message and its page usually come with one read: they pass through the buffer, which is in the
// cache, and are copied once more. The rest of a page that was cut is read straight into its frame.
Connection::Outcome Connection::read_once(Sink& sink, const char** why) noexcept {
  const std::size_t missing = page_ != nullptr ? kPageSize - page_filled_ : 0;
  const iovec pieces[2] = {{page_ + page_filled_, missing},
                           {buffer_.get() + filled_, buffer_bytes_ - filled_}};
  const long got =
      page_ != nullptr ? stream_->read_some(pieces, 2) : stream_->read_some(pieces + 1, 1);
  if (got == -EAGAIN) return Outcome::kNothing;
  if (got < 0) {
    *why = phrase_for(-got);
    return Outcome::kLost;
  }
  const auto bytes = static_cast<std::size_t>(got);
  traffic_.received(0, 0, bytes);
  const std::size_t of_page = std::min(bytes, missing);
  page_filled_ += of_page;
  filled_ += bytes - of_page;
  *why = page_ != nullptr && page_filled_ == kPageSize ? finish_page(sink) : nullptr;
  if (*why == nullptr && page_ == nullptr) *why = parse(sink);
  return *why == nullptr ? Outcome::kSome : Outcome::kLost;
}

Connection::Outcome Connection::receive(Sink& sink, const char** why) noexcept {
  Outcome outcome = read_once(sink, why);
  // An unfinished page is most likely there already. TLS may hold bytes that poll does not see:
  // read until it has none.
  while (outcome == Outcome::kSome && (page_ != nullptr || stream_->encrypted())) {
    outcome = read_once(sink, why);
    if (outcome == Outcome::kNothing) return Outcome::kSome;
  }
  return outcome;
}

int Connection::send(const Outgoing* const* messages, std::size_t count) noexcept {
  if (count == 0) return 0;
  std::byte headers[kMostTogether * wire::kMessageBytes];
  iovec pieces[2 * kMostTogether];
  int pieces_count = 0;
  std::size_t pages = 0;
  // Headers that no page follows go as one piece.
  std::byte *first = headers, *next = headers;
  for (std::size_t i = 0; i < count; ++i) {
    wire::encode(messages[i]->message, bounds_.epoch, next);
    next += wire::kMessageBytes;
    const std::byte* page = messages[i]->page;
    if (page == nullptr && i + 1 < count) continue;
    pieces[pieces_count++] = {first, static_cast<std::size_t>(next - first)};
    first = next;
    if (page == nullptr) continue;
    pieces[pieces_count++] = {const_cast<std::byte*>(page), kPageSize};
    ++pages;
  }
  if (const int error = stream_->writev(pieces, pieces_count)) return error;
  traffic_.sent(count, pages, count * wire::kMessageBytes + pages * kPageSize);
  return 0;
}

}  // namespace xenspan::dsm::tcp
