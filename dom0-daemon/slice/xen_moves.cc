#include "dom0-daemon/slice/xen_moves.h"

#include <fmt/format.h>

#include <cerrno>
#include <utility>

namespace xenspan::slice {
namespace {

constexpr dsm::HostId kHome = 0;
constexpr std::uint64_t kOnItsWay = 0, kBack = 1;  // the value of kVcpu

XenMoves::Bytes bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(const XenLines::Message& message) {
  return {reinterpret_cast<const char*>(message.bytes.data()), message.bytes.size()};
}

}  // namespace

XenMoves::XenMoves(dsm::HostId self, std::vector<dsm::HostId> places, Ways ways,
                   std::chrono::milliseconds limit)
    : self_(self),
      ways_(std::move(ways)),
      limit_(limit),
      routes_(self, std::move(places), ways_.deliver,
              [this](dsm::HostId to, unsigned vcpu, std::uint8_t vector) {
                ways_.send(to, Kind::kInterrupt, vcpu, vector, {});
              }) {}

std::string XenMoves::lost() const {
  const std::lock_guard guard(lock_);
  return lost_;
}

XenMoves::Handled XenMoves::handle(const XenLines::Message& message) {
  if (message.vcpu >= routes_.size()) return Handled::kNo;
  const bool commands = message.from == kHome;
  switch (message.kind) {
    case Kind::kInterrupt:
      routes_.interrupt(message.vcpu, static_cast<std::uint8_t>(message.value));
      return Handled::kYes;
    case Kind::kExpect:
      if (!commands) return Handled::kYes;
      routes_.expect(message.vcpu);
      tell_home(Kind::kExpected, message.vcpu, "");
      return Handled::kYes;
    case Kind::kGive:
      if (commands) give(message.vcpu, static_cast<dsm::HostId>(message.value));
      break;
    case Kind::kVcpu: take_in(message); break;
    case Kind::kPlace:
      if (commands) routes_.go(message.vcpu, static_cast<dsm::HostId>(message.value));
      return Handled::kYes;
    case Kind::kMark:
      if (commands) mark(static_cast<dsm::HostId>(message.value));
      return Handled::kYes;
    case Kind::kMarker:
      ways_.quiet();
      tell_home(Kind::kMarked, 0, "");
      return Handled::kYes;
    case Kind::kExpected:
    case Kind::kVcpuIsThere:
    case Kind::kMarked: answered({true, message.from, message.vcpu, ""}); return Handled::kYes;
    case Kind::kRefused:
      answered({false, message.from, message.vcpu, text_of(message)});
      return Handled::kYes;
    default: return Handled::kNo;
  }
  return lost().empty() ? Handled::kYes : Handled::kLost;
}

void XenMoves::tell_home(Kind kind, unsigned vcpu, const std::string& text) {
  if (self_ == kHome)
    answered({kind != Kind::kRefused, self_, vcpu, text});
  else
    ways_.send(kHome, kind, vcpu, 0, bytes_of(text));
}

// From the moment it goes nothing is delivered to it here, and what was before goes with it.
void XenMoves::give(unsigned vcpu, dsm::HostId to) {
  routes_.go(vcpu, to);
  const auto state = ways_.take(vcpu);
  if (!state) {
    routes_.come(vcpu);
    tell_home(Kind::kRefused, vcpu, state.error().message);
    tell_home(Kind::kVcpuIsThere, vcpu, "");
    return;
  }
  if (const int error = ways_.send(to, Kind::kVcpu, vcpu, kOnItsWay, *state); error != 0) {
    const std::lock_guard guard(lock_);
    lost_ = system_error(error, fmt::format("vCPU {} was lost on its way to another host", vcpu))
                .message;
  }
}

void XenMoves::take_in(const XenLines::Message& message) {
  const Status put = ways_.put(message.vcpu, message.bytes);
  if (put) {
    routes_.come(message.vcpu);
    return tell_home(Kind::kVcpuIsThere, message.vcpu, "");
  }
  // Its state first: what is kept here arrives after it.
  if (message.value == kOnItsWay &&
      ways_.send(message.from, Kind::kVcpu, message.vcpu, kBack, message.bytes) == 0) {
    tell_home(Kind::kRefused, message.vcpu, put.error().message);
    return routes_.go(message.vcpu, message.from);
  }
  const std::lock_guard guard(lock_);
  lost_ = put.error().message;
  has_answer_.notify_all();
}

// Everything sent to that host by what was known until now is on the line before it.
void XenMoves::mark(dsm::HostId to) {
  routes_.between_interrupts([&] { ways_.send(to, Kind::kMarker, 0, 0, {}); });
}

void XenMoves::answered(Answer answer) {
  const std::lock_guard guard(lock_);
  answers_.push_back(std::move(answer));
  has_answer_.notify_all();
}

Result<XenMoves::Answer> XenMoves::await(const std::string& what) {
  std::unique_lock guard(lock_);
  const bool said =
      has_answer_.wait_for(guard, limit_, [this] { return !answers_.empty() || !lost_.empty(); });
  if (!lost_.empty()) return Error{EIO, lost_};
  if (!said)
    return Error{ETIMEDOUT,
                 fmt::format("no host has said within {} s that {}", limit_.count() / 1000, what)};
  Answer answer = std::move(answers_.front());
  answers_.erase(answers_.begin());
  return answer;
}

Status XenMoves::move(unsigned vcpu, dsm::HostId to, const std::vector<dsm::HostId>& others) {
  const std::lock_guard one(moving_);
  const dsm::HostId from = routes_.place(vcpu);
  if (from == to) return {};
  if (to == self_) {
    routes_.expect(vcpu);
  } else {
    if (const int error = ways_.send(to, Kind::kExpect, vcpu, 0, {}); error != 0)
      return system_error(EBUSY, "the slice there cannot be reached");
    const auto expected = await(fmt::format("it expects vCPU {}", vcpu));
    if (!expected) return expected.error();
  }
  if (from == self_) {
    give(vcpu, to);
  } else if (const int error = ways_.send(from, Kind::kGive, vcpu, to, {}); error != 0) {
    return system_error(error, "the slice that has it cannot be reached");
  }
  if (const std::string cause = lost(); !cause.empty()) return Error{EIO, cause};
  std::string refusal;
  for (;;) {
    const auto answer = await(fmt::format("vCPU {} has arrived", vcpu));
    if (!answer) return answer.error();
    if (answer->there) {
      // The others, and the home, when it was not part of it.
      const dsm::HostId now = answer->host;
      routes_.go(vcpu, now);
      for (const dsm::HostId other : others)
        if (other != self_ && other != now) ways_.send(other, Kind::kPlace, vcpu, now, {});
      if (now == to) return {};
      // Its reason came by another line, and may be the later one.
      const auto why = refusal.empty() ? await("why it is back") : Result<Answer>(Answer{});
      if (!why) return why.error();
      return Error{EBUSY, refusal.empty() ? why->text : refusal};
    }
    refusal = answer->text;
  }
}

Status XenMoves::flush(dsm::HostId host, const std::vector<dsm::HostId>& others) {
  const std::lock_guard one(moving_);
  unsigned wanted = 0;
  for (const dsm::HostId other : others) {
    if (other == host) continue;
    if (other == self_)
      mark(host);
    else if (const int error = ways_.send(other, Kind::kMark, 0, host, {}); error != 0)
      return system_error(error, "a slice cannot be reached");
    ++wanted;
  }
  for (; wanted > 0; --wanted) {
    const auto marked = await("nothing is on its way to it");
    if (!marked) return marked.error();
  }
  return {};
}

}  // namespace xenspan::slice
