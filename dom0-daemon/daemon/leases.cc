#include "dom0-daemon/daemon/leases.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <csignal>

#include "base/boot_clock.h"
#include "base/log.h"

namespace xenspan::daemon {
namespace {

using quorum::Event;
using quorum::Message;

Json to_json(const std::string& uuid, const Message& message) {
  Json json{{"op", "quorum"},
            {"uuid", uuid},
            {"kind", static_cast<unsigned>(message.kind)},
            {"from", message.from},
            {"to", message.to},
            {"epoch", message.epoch},
            {"members", message.members},
            {"home", message.home},
            {"ballot", message.ballot}};
  if (message.kind == Message::Kind::kBeat) {
    json["sent"] = message.sent;
    json["echo"] = message.echo;
    json["granted"] = message.granted;
    json["suspects"] = message.suspects;
    json["open"] = message.open;
  } else {
    json["accepted"] = message.accepted;
    json["value"] = message.value;
    json["value_home"] = message.value_home;
    json["ended"] = message.ended;
  }
  return json;
}

// What is out of range is ignored by the machine.
Message message_from(const Json& json) {
  Message message;
  message.kind = static_cast<Message::Kind>(std::min<std::uint64_t>(number_or(json, "kind", 0), 4));
  message.from = static_cast<quorum::Member>(number_or(json, "from", 0) & 0xff);
  message.to = static_cast<quorum::Member>(number_or(json, "to", 0) & 0xff);
  message.epoch = static_cast<quorum::Epoch>(number_or(json, "epoch", 0));
  message.members = number_or(json, "members", 0);
  message.home = static_cast<quorum::Member>(number_or(json, "home", 0) & 0xff);
  message.ballot = number_or(json, "ballot", 0);
  message.sent = static_cast<quorum::Time>(number_or(json, "sent", 0));
  message.echo = static_cast<quorum::Time>(number_or(json, "echo", 0));
  message.granted = static_cast<quorum::Time>(number_or(json, "granted", 0));
  message.suspects = number_or(json, "suspects", 0);
  message.open = flag_field(json, "open");
  message.accepted = number_or(json, "accepted", 0);
  message.value = number_or(json, "value", 0);
  message.value_home = static_cast<quorum::Member>(number_or(json, "value_home", 0) & 0xff);
  message.ended = number_or(json, "ended", 0);
  return message;
}

}  // namespace

std::string list_text(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
  return text;
}

Leases::Leases(EventLoop& loop, const Config& config, Cluster& cluster, LocalSlices& slices)
    : loop_(loop), config_(config), cluster_(cluster), slices_(slices) {
  slices_.set_watcher(this);
}

void Leases::set_callbacks(OnAgreed on_agreed, OnFenced on_fenced) {
  on_agreed_ = std::move(on_agreed);
  on_fenced_ = std::move(on_fenced);
}

void Leases::slice_created(const std::string& uuid, const Json& create) {
  // Under Xen the connections decide (xenspand(8)).
  if (create.contains("xen")) return;
  Entry entry;
  quorum::Quorum::Setup setup;
  if (const Json* hosts = array_field(create, "hosts"))
    for (const Json& host : *hosts) entry.hosts.push_back(text_or(host, "name", ""));
  entry.self = static_cast<quorum::Member>(number_or(create, "self", 0) & 0xff);
  const std::size_t count = entry.hosts.size();
  setup.home = static_cast<quorum::Member>(number_or(create, "home", 0) & 0xff);
  if (count == 0 || count > quorum::kMaxMembers || entry.self >= count || setup.home >= count)
    return;
  setup.self = entry.self;
  setup.members = ~quorum::Members{0} >> (quorum::kMaxMembers - count);
  if (const Json* joins = object_field(create, "quorum")) {
    setup.members = number_or(*joins, "members", 0) & ~quorum::bit(entry.self);
    setup.epoch = static_cast<quorum::Epoch>(number_or(*joins, "epoch", 0));
  }
  // The home's, so that all count on the same.
  setup.timing = quorum::Timing::of(static_cast<quorum::Time>(std::clamp<std::uint64_t>(
      number_or(create, "lost_after", static_cast<std::uint64_t>(config_.lost_after.count())), 1000,
      3'600'000)));
  entry.quorum = std::make_unique<quorum::Quorum>(setup, boot_ms());
  entry.tick = std::make_unique<Timer>(
      loop_, std::chrono::milliseconds(setup.timing.beat), [this, uuid] { tick(uuid); },
      /*repeat=*/true);
  entries_.insert_or_assign(uuid, std::move(entry));
}

// Who has which number is in the home's orders to the slice.
void Leases::slice_told(const std::string& uuid, const Json& message) {
  if (text_or(message, "op", "") != "add-peer") return;
  const auto found = entries_.find(uuid);
  const std::uint64_t index = number_or(message, "host", quorum::kMaxMembers);
  if (found == entries_.end() || index >= quorum::kMaxMembers) return;
  auto& hosts = found->second.hosts;
  if (hosts.size() <= index) hosts.resize(index + 1);
  hosts[index] = text_or(message, "name", "");
}

bool Leases::counts(const std::string& uuid, int index) const {
  const auto found = entries_.find(uuid);
  return found != entries_.end() && index >= 0 && index < int{quorum::kMaxMembers} &&
         (found->second.quorum->members() & quorum::bit(static_cast<quorum::Member>(index))) != 0;
}

Json Leases::standing(const std::string& uuid) const {
  const auto found = entries_.find(uuid);
  if (found == entries_.end()) return nullptr;
  return {{"epoch", found->second.quorum->epoch()}, {"members", found->second.quorum->members()}};
}

void Leases::join(const std::string& uuid, int index) {
  const auto found = entries_.find(uuid);
  if (found == entries_.end()) return;
  found->second.quorum->join(static_cast<quorum::Member>(index));
  tick_soon(uuid);
}

void Leases::leave(const std::string& uuid, int index, bool ended) {
  const auto found = entries_.find(uuid);
  if (found == entries_.end()) return;
  found->second.quorum->leave(static_cast<quorum::Member>(index), ended);
  tick_soon(uuid);
}

void Leases::give_home(const std::string& uuid, int index) {
  const auto found = entries_.find(uuid);
  if (found == entries_.end()) return;
  found->second.quorum->give_home(static_cast<quorum::Member>(index));
  tick_soon(uuid);
}

int Leases::home_of(const std::string& uuid) const {
  const auto found = entries_.find(uuid);
  return found == entries_.end() ? -1 : int{found->second.quorum->home()};
}

// From the loop: who asks must not get the answer in the middle.
void Leases::tick_soon(const std::string& uuid) {
  loop_.later([this, uuid] { tick(uuid); });
}

bool Leases::slice_event(const std::string& uuid, const Json& event) {
  const std::string kind = text_or(event, "event", "");
  const auto found = entries_.find(uuid);
  if (kind == "stands" || kind == "goes-on") {
    if (found != entries_.end()) found->second.stands = kind == "stands";
    log::warning("domain {}: the slice here {}", uuid,
                 kind == "stands" ? "stands still: its lease is over" : "goes on");
    return true;
  }
  if (kind == "ready" && found != entries_.end()) found->second.ready = true;
  return false;
}

void Leases::slice_ended(const std::string& uuid) {
  const auto found = entries_.find(uuid);
  if (found == entries_.end()) return;
  found->second.ended = true;
  if (!found->second.home_gone) forget_later(uuid);
}

void Leases::forget_later(const std::string& uuid) {
  loop_.later([this, uuid] {
    const auto found = entries_.find(uuid);
    if (found != entries_.end() && found->second.ended) entries_.erase(found);
  });
}

void Leases::home_lost(const std::string& home) {
  for (auto& [uuid, entry] : entries_)
    if (const quorum::Member of = entry.quorum->home();
        entry.self != of && of < entry.hosts.size() && entry.hosts[of] == home)
      entry.home_gone = true;
}

bool Leases::handle(const std::string& host, const std::string& op, const Json& message) {
  if (op != "quorum") return false;
  const std::string uuid = text_or(message, "uuid", "");
  const auto found = entries_.find(uuid);
  if (found == entries_.end()) return true;
  Entry& entry = found->second;
  const Message received = message_from(message);
  // A host speaks for itself only.
  if (received.from >= entry.hosts.size() || entry.hosts[received.from] != host) return true;
  quorum::Output out;
  entry.quorum->receive(received, boot_ms(), out);
  carry_out(uuid, entry, out);
  return true;
}

void Leases::tick(const std::string& uuid) {
  const auto found = entries_.find(uuid);
  if (found == entries_.end()) return;
  quorum::Output out;
  found->second.quorum->tick(boot_ms(), out);
  carry_out(uuid, found->second, out);
}

void Leases::carry_out(const std::string& uuid, Entry& entry, const quorum::Output& out) {
  for (const Message& message : out.messages)
    if (message.to < entry.hosts.size())
      cluster_.send(entry.hosts[message.to], to_json(uuid, message));
  tell_slice(uuid, entry);
  // Called from the loop: a callback may end the slice, not the entry.
  for (const Event& each : out.events) event(uuid, entry, each);
}

void Leases::event(const std::string& uuid, Entry& entry, const Event& event) {
  const quorum::Quorum& quorum = *entry.quorum;
  switch (event.kind) {
    case Event::Kind::kHold:
      return log::warning(
          "domain {}: no majority of its hosts answers host {}: its vCPUs here stand still", uuid,
          config_.name);
    case Event::Kind::kResume:
      return log::info("domain {}: a majority of its hosts answers host {} again", uuid,
                       config_.name);
    case Event::Kind::kFenced: return fence(uuid, entry, event);
    case Event::Kind::kEpoch:
    case Event::Kind::kGone: break;
  }
  Agreed agreed;
  agreed.uuid = uuid;
  agreed.epoch = event.epoch;
  agreed.by = names(entry, quorum.members());
  if (event.kind == Event::Kind::kEpoch) {
    log::info("domain {}: epoch {}: members are {}", uuid, agreed.epoch, list_text(agreed.by));
  } else {
    agreed.gone = names(entry, event.members);
    agreed.home_lost = (event.members & quorum::bit(quorum.home())) != 0;
    log::info("domain {}: epoch {} is without {}", uuid, agreed.epoch, list_text(agreed.gone));
    if (agreed.home_lost || entry.ended) {
      entry.home_gone = false;
      if (entry.ended) forget_later(uuid);
    }
  }
  if (on_agreed_) on_agreed_(agreed);
}

void Leases::fence(const std::string& uuid, Entry& entry, const Event& event) {
  const bool alone = (entry.quorum->members() & quorum::bit(entry.self)) != 0;
  const std::string cause =
      alone ? fmt::format(
                  "host {} was cut off from {}: without a majority of the domain's hosts it "
                  "may not go on (epoch {})",
                  config_.name, list_text(names(entry, event.members)), event.epoch)
            : fmt::format(
                  "host {} was cut off, and the domain's other hosts went on without it "
                  "(epoch {})",
                  config_.name, event.epoch);
  log::warning("domain {}: fenced: {}", uuid, cause);
  if (on_fenced_) on_fenced_(uuid, cause);
  if (const pid_t pid = slices_.pid_of(uuid); pid > 0) kill(pid, SIGKILL);
  entry.home_gone = false;
  if (entry.ended) forget_later(uuid);
}

void Leases::tell_slice(const std::string& uuid, Entry& entry) {
  if (!entry.ready || entry.ended) return;
  // Repeated until it says that it goes on: it may be about to stop itself just now.
  const auto let_go_on = [&] {
    if (const pid_t pid = slices_.pid_of(uuid); pid > 0) kill(pid, SIGCONT);
  };
  const quorum::Time now = boot_ms();
  if (std::has_single_bit(entry.quorum->members()) && !entry.quorum->fenced()) {
    // Nobody could go on without it.
    if (entry.told != 0) slices_.send(uuid, {{"op", "lease"}, {"until", 0}});
    entry.told = 0;
    if (entry.stands) let_go_on();  // the others left while it stood
    return;
  }
  const quorum::Time end = entry.quorum->fenced() ? 1 : entry.quorum->lease_end(now);
  if (end == 0) return;
  // Told at each beat, not with every message.
  constexpr quorum::Time kLittle = 20;
  if (end < entry.told || end > entry.told + kLittle) {
    slices_.send(uuid, {{"op", "lease"}, {"until", end}, {"epoch", entry.quorum->epoch()}});
    entry.told = end;
  }
  if (entry.stands && now < end) let_go_on();
}

std::vector<std::string> Leases::names(const Entry& entry, quorum::Members members) const {
  std::vector<std::string> list;
  for (std::size_t i = 0; i < entry.hosts.size(); ++i)
    if ((members >> i & 1) != 0) list.push_back(entry.hosts[i]);
  return list;
}

}  // namespace xenspan::daemon
