#include "dsm-rdma/transport/tcp/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "dsm-rdma/transport/parcels.h"

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
                       bool own, const wire::Bounds& bounds, const std::atomic<Epoch>& epoch)
    : stream_(std::move(stream)),
      end_{self, peer, lane, own},
      bounds_(bounds),
      epoch_(epoch),
      buffer_bytes_(!own                   ? kRequestsBytes
                    : lane == kServiceLane ? kStreamBytes
                                           : kAnswersBytes),
      // Memory that no message has needed yet stays untouched.
      buffer_(std::make_unique_for_overwrite<std::byte[]>(buffer_bytes_)) {
  if (own && lane == kServiceLane && !stream_->encrypted())
    slots_ = std::make_unique_for_overwrite<Slots>();
}

const char* Connection::finish_page(Sink& sink) noexcept {
  page_ = nullptr;
  page_filled_ = 0;
  traffic_.received(1, 1, 0);
  return sink.deliver(message_) ? nullptr : "it sent a message that breaks the protocol";
}

// Delivers every whole message in the buffer; nullptr, or why the peer is not to be listened to any
// more.
const char* Connection::parse(Sink& sink) noexcept {
  Arrivals<kMostTogether> together;
  std::size_t at = 0, messages = 0, pages = 0;
  const char* wrong = nullptr;
  const auto deliver = [&] {
    if (together.count() == 0) return;
    traffic_.received(messages, pages, 0);
    if (!sink.deliver_several(together.all(), together.count()) && wrong == nullptr)
      wrong = "it sent a message that breaks the protocol";
    together.clear();
    messages = pages = 0;
  };
  while (wrong == nullptr && page_ == nullptr && filled_ - at >= wire::kMessageBytes) {
    wire::Run run;
    wrong = wire::decode(buffer_.get() + at, bounds(), run);
    message_ = run.first;
    if (wrong == nullptr) wrong = end_.check(message_);
    if (wrong != nullptr) break;
    at += wire::kMessageBytes;
    if (run.count > together.room()) deliver();
    if (wrong != nullptr) break;
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
    for (unsigned i = 0; i < run.count; ++i)
      together.add(run.at(i), page ? buffer_.get() + at : nullptr);
    ++messages;
    if (page) at += kPageSize, ++pages;
  }
  deliver();
  filled_ -= at;
  if (filled_ > 0 && at > 0) std::memmove(buffer_.get(), buffer_.get() + at, filled_);
  return wrong;
}

// As parse(), of what is in the slots.
const char* Connection::parse_slots(Sink& sink) noexcept {
  Arrivals<kSlots> together;
  const char* wrong = nullptr;
  bool fits = true;
  while (slots_filled_ - together.count() * kSlot >= wire::kMessageBytes) {
    wire::Run run;
    wrong = wire::decode(slots_->headers[together.count()], bounds(), run);
    message_ = run.first;
    if (wrong == nullptr) wrong = end_.check(message_);
    fits = message_.payload == ivy::Payload::kPage;
    if (wrong != nullptr || !fits || slots_filled_ < (together.count() + 1) * kSlot) break;
    together.add(message_, slots_->pages[together.count()]);
  }
  const std::size_t count = together.count();
  if (count > 0) {
    traffic_.received(count, count, 0);
    if (!sink.deliver_several(together.all(), count) && wrong == nullptr)
      wrong = "it sent a message that breaks the protocol";
  }
  if (wrong != nullptr) return wrong;
  if (!fits) return leave_slots(sink, count);
  slots_filled_ -= count * kSlot;
  if (count == 0 || slots_filled_ == 0) return nullptr;
  const std::size_t of_header = std::min(slots_filled_, wire::kMessageBytes);
  std::memcpy(slots_->headers[0], slots_->headers[count], of_header);
  std::memcpy(slots_->pages[0], slots_->pages[count], slots_filled_ - of_header);
  return nullptr;
}

// What is in the slots from this one on goes through the buffer.
const char* Connection::leave_slots(Sink& sink, std::size_t from) noexcept {
  for (std::size_t left = slots_filled_ - from * kSlot; left > 0; ++from) {
    const std::size_t of_header = std::min(left, wire::kMessageBytes);
    const std::size_t of_page = std::min(left - of_header, kPageSize);
    std::memcpy(buffer_.get() + filled_, slots_->headers[from], of_header);
    std::memcpy(buffer_.get() + filled_ + of_header, slots_->pages[from], of_page);
    filled_ += of_header + of_page;
    left -= of_header + of_page;
  }
  slots_filled_ = 0;
  const char* wrong = parse(sink);
  if (wrong != nullptr || page_ != nullptr) return wrong;
  // Less than a message is left.
  std::memcpy(slots_->headers[0], buffer_.get(), filled_);
  slots_filled_ = std::exchange(filled_, 0);
  return nullptr;
}

// A message and its page usually come with one read: they pass through the buffer, which is in the
// cache, and are copied once more. The rest of a page that was cut is read straight into its frame.
long Connection::read_linear() noexcept {
  const std::size_t missing = page_ != nullptr ? kPageSize - page_filled_ : 0;
  const iovec pieces[2] = {{page_ + page_filled_, missing},
                           {buffer_.get() + filled_, buffer_bytes_ - filled_}};
  if (page_ == nullptr) return stream_->read_some(pieces + 1, 1);
  return stream_->read_some(pieces, slots_ ? 1 : 2);
}

long Connection::read_slots() noexcept {
  iovec pieces[2 * kSlots];
  int count = 0;
  std::size_t slot = slots_filled_ / kSlot, skip = slots_filled_ % kSlot;
  for (; slot < kSlots; ++slot, skip = 0) {
    const std::size_t of_header = std::min(skip, wire::kMessageBytes), of_page = skip - of_header;
    if (of_header < wire::kMessageBytes)
      pieces[count++] = {slots_->headers[slot] + of_header, wire::kMessageBytes - of_header};
    pieces[count++] = {slots_->pages[slot] + of_page, kPageSize - of_page};
  }
  return stream_->read_some(pieces, count);
}

Connection::Outcome Connection::read_once(Sink& sink, const char** why) noexcept {
  const bool in_slots = slots_ != nullptr && page_ == nullptr;
  const long got = in_slots ? read_slots() : read_linear();
  if (got == -EAGAIN) return Outcome::kNothing;
  if (got < 0) {
    *why = phrase_for(-got);
    return Outcome::kLost;
  }
  const auto bytes = static_cast<std::size_t>(got);
  traffic_.received(0, 0, bytes);
  if (in_slots) {
    slots_filled_ += bytes;
    *why = parse_slots(sink);
    return *why == nullptr ? Outcome::kSome : Outcome::kLost;
  }
  const std::size_t of_page = page_ != nullptr ? std::min(bytes, kPageSize - page_filled_) : 0;
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
  const Parcels<kMostTogether> parcels(messages, count);
  // Headers that no page follows go as one piece.
  std::byte *first = headers, *next = headers;
  for (const Outgoing& parcel : parcels) {
    wire::encode(parcel.run, epoch_.load(std::memory_order_relaxed), next);
    next += wire::kMessageBytes;
    if (parcel.page == nullptr && &parcel + 1 != parcels.end()) continue;
    pieces[pieces_count++] = {first, static_cast<std::size_t>(next - first)};
    first = next;
    if (parcel.page != nullptr)
      pieces[pieces_count++] = {const_cast<std::byte*>(parcel.page), kPageSize};
  }
  if (const int error = stream_->writev(pieces, pieces_count)) return error;
  const std::size_t bytes = parcels.size() * wire::kMessageBytes + parcels.pages() * kPageSize;
  traffic_.sent(parcels.size(), parcels.pages(), bytes);
  return 0;
}

}  // namespace xenspan::dsm::tcp
