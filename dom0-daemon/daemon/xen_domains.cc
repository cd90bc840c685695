#include "dom0-daemon/daemon/xen_domains.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>

#include "base/log.h"
#include "dom0-daemon/daemon/names.h"
#include "dom0-daemon/daemon/transport_choice.h"
#include "dom0-daemon/daemon/xen_config_nodes.h"
#include "xenstore-schema/paths.h"

namespace xenspan::daemon {
namespace {

using xenstore::DomainState;
using xenstore::MemberState;

constexpr int kHostTicks = 15;  // for a declared host to be connected
// For a host to make its slice, and for all to be ready; `start-within` where that is longer.
constexpr std::chrono::milliseconds kStartLimit{120'000};
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMostMemory = std::uint64_t{3} << 30;

std::string local_path(unsigned id, const char* node) {
  return fmt::format("/local/domain/{}/{}", id, node);
}

User root() {
  User user;
  user.name = "root";
  return user;
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return system_error(errno, "cannot read " + path, "see `config` in the declaration");
  return text.str();
}

}  // namespace

XenDomains::XenDomains(const Config& config, Cluster& cluster, DomainTable& domains, XenHost& xen,
                       std::function<HostRecord()> own_record)
    : config_(config),
      cluster_(cluster),
      domains_(domains),
      xen_(xen),
      own_record_(std::move(own_record)) {}

std::string XenDomains::mark(const Guest& guest) const {
  return local_path(guest.xen.id, "xenspan/spans");
}

std::vector<std::string> XenDomains::uuids() const {
  std::vector<std::string> all;
  for (const auto& [uuid, guest] : guests_) all.push_back(uuid);
  return all;
}

std::chrono::milliseconds XenDomains::start_limit() const {
  return std::max(kStartLimit, config_.start_within);
}

void XenDomains::look() {
  const auto all = xen_.guests();
  if (!all) return log::warning("{}", all.error().message);
  std::map<std::string, const XenGuest*> here;
  for (const XenGuest& each : *all) {
    here[each.uuid] = &each;
    if (!each.ended && !guests_.contains(each.uuid)) found(each);
  }
  for (const std::string& uuid : uuids()) {
    const auto guest = guests_.find(uuid);
    if (guest == guests_.end()) continue;
    const auto now = here.find(uuid);
    // xl makes a domain that restarts anew, with the same uuid.
    if (now != here.end() && !now->second->ended && now->second->id == guest->second.xen.id)
      continue;
    gone(guest->second);
    if (domains_.own(uuid) == nullptr) guests_.erase(uuid);
  }
}

void XenDomains::found(const XenGuest& xen) {
  if (store_ == nullptr) return;
  const auto name = store_->find(local_path(xen.id, "name"));
  const std::uint64_t memory = memory_of(xen.id);
  if (!name || !*name || memory == 0) return;  // xl has not come that far
  const auto declared = declaration_of(xen, **name);
  if (!declared) return;
  Guest guest;
  guest.xen = xen;
  guest.name = is_domain_name(**name) ? **name : fmt::format("domain-{}", xen.id);
  guest.declared = *declared;
  guest.memory = memory;
  log::info("domain {} ({}, number {}) is declared as spanning", guest.name, xen.uuid, xen.id);
  Guest& kept = guests_[xen.uuid] = std::move(guest);
  const auto spanned = store_->find(mark(kept));
  if (spanned && *spanned && **spanned == config_.name)
    return stop(kept, fmt::format("host {}'s xenspand ended while domain {} spanned, and its "
                                  "memory is spread: `xl destroy` it and create it again",
                                  config_.name, kept.name));
  domains_.put_own(record_of(kept, DomainState::kCreating, ""));
  advance(kept);
}

// A file's, or the nodes'.
std::optional<XenDeclaration> XenDomains::declaration_of(const XenGuest& xen,
                                                         const std::string& name) {
  const XenDeclarations all = read_xen_declarations(config_.domains);
  for (const std::string& fault : all.faults)
    if (faults_told_.insert(fault).second) log::error("{}", fault);
  if (const XenDeclaration* file = find_xen_declaration(all.good, name, xen.uuid)) return *file;
  const auto nodes = read_xen_config_nodes(*store_, xen.uuid, xen.vcpus);
  if (!nodes) return std::nullopt;
  const std::string fault = nodes->faults.empty() ? "" : nodes->faults.front();
  tell_xen_config_error(*store_, xen.uuid, fault);
  if (fault.empty()) return nodes->declaration;
  const std::string told =
      fmt::format("{} is not used: {}", xenstore::paths::config(xen.uuid), fault);
  if (faults_told_.insert(told).second) log::error("{}", told);
  return std::nullopt;
}

// static-max is in KiB.
std::uint64_t XenDomains::memory_of(unsigned id) {
  const auto text = store_->find(local_path(id, "memory/static-max"));
  if (!text || !*text) return 0;
  return xenstore::decode_number(**text, 0, UINT64_MAX >> 10).value_or(0) << 10;
}

void XenDomains::gone(Guest& guest) {
  if (Domain* domain = domains_.own(guest.xen.uuid)) {
    domain->slice_event(
        config_.name,
        {{"event", "exited"}, {"status", 0}, {"signal", 0}, {"message", "its domain has ended"}});
    return;
  }
  log::info("domain {} has ended", guest.name);
  end_slices(guest);
  DomainRecord record = record_of(guest, DomainState::kEnded, "its domain has ended");
  record.exit_status = 0;
  record.ended = static_cast<std::uint64_t>(std::time(nullptr));
  domains_.put_own(std::move(record));
}

void XenDomains::tick() {
  for (const std::string& uuid : uuids()) {
    const auto found = guests_.find(uuid);
    if (found == guests_.end()) continue;
    Guest& guest = found->second;
    ++guest.ticks;
    if (guest.phase == Phase::kWaiting || guest.phase == Phase::kMaking) advance(guest);
    if (guest.phase == Phase::kSpanning) follow_pause(guest);
  }
  // A name is written after the domain was introduced.
  look();
}

// `xl pause` is for the whole guest. The home's slice pauses its domain for moments, too, so it
// counts when it is seen twice; and while the memory is taken over the guest stands anyway.
void XenDomains::follow_pause(Guest& guest) {
  const Domain* domain = domains_.own(guest.xen.uuid);
  const auto now = xen_.guest(guest.xen.id);
  if (domain == nullptr || domain->record().state != DomainState::kRunning || !now) return;
  const bool twice = now->paused == guest.seen_paused;
  guest.seen_paused = now->paused;
  if (!twice || now->paused == guest.paused) return;
  guest.paused = now->paused;
  log::info("domain {} is {} by `xl`, and so are its slices", guest.name,
            guest.paused ? "paused" : "unpaused");
  for (const std::string& host : guest.made)
    cluster_.send(host,
                  {{"op", "xen-slice-pause"}, {"uuid", guest.xen.uuid}, {"paused", guest.paused}});
}

void XenDomains::advance(Guest& guest) {
  if (guest.phase == Phase::kWaiting) {
    if (guest.asked.empty() && guest.refused.empty()) {
      const HostRecord own = own_record_();
      std::string problem = own.xen.problem;
      if (problem.empty()) problem = xen_.guest_problem(guest.xen.id);
      if (problem.empty() && guest.declared.vcpus.size() != guest.xen.vcpus)
        problem = fmt::format(
            "it has {} vCPUs and {} are declared: make `vcpus` of the "
            "declaration and of {} agree",
            guest.xen.vcpus, guest.declared.vcpus.size(), guest.declared.config);
      if (problem.empty() && guest.memory > kMostMemory)
        problem =
            "a spanning domain has 3072 MiB of memory at most: lower `memory` and `maxmem` "
            "of its xl file";
      if (!problem.empty()) return alone(guest, fmt::format("host {}: {}", config_.name, problem));
    }
    if (!hosts_are_known(guest)) return;
    if (guest.refused.size() == guest.declared.hosts.size()) return alone(guest, "");
    // A vCPU that is not up has no state that could leave.
    const std::uint64_t up = xen_.vcpus_up(guest.xen);
    for (std::size_t i = 0; i < guest.declared.vcpus.size(); ++i)
      if (!guest.declared.vcpus[i].host.empty() && (up >> i & 1) == 0) return;
    return ask(guest);
  }
  const auto limit = std::chrono::ceil<std::chrono::seconds>(start_limit()).count();
  if (guest.ticks > limit)
    for (const std::string& host : guest.asked)
      if (!guest.made.contains(host) && !guest.refused.contains(host))
        refuse(guest, host,
               fmt::format("host {} has not made a slice within {} s: see its "
                           "xenspand's log, or raise start-within in xenspand.conf here",
                           host, limit));
  if (guest.phase != Phase::kMaking ||
      guest.made.size() + guest.refused.size() < guest.declared.hosts.size())
    return;
  if (guest.made.empty()) return alone(guest, "");
  span(guest);
}

// Every declared host is either connected and able, or refused.
bool XenDomains::hosts_are_known(Guest& guest) {
  bool known = true;
  for (const std::string& host : guest.declared.hosts) {
    if (guest.refused.contains(host)) continue;
    const auto peer = cluster_.peers().find(host);
    if (peer == cluster_.peers().end()) {
      refuse(
          guest, host,
          host == config_.name
              ? fmt::format("host {} is the home itself: take it out of `hosts`", host)
              : fmt::format("host {} is not known here: name it in xenspand.conf as a peer", host));
      continue;
    }
    if (peer->second.state != HostState::kActive || !peer->second.record) {
      known = known && guest.ticks >= kHostTicks;
      if (guest.ticks >= kHostTicks)
        refuse(
            guest, host,
            fmt::format("host {} is not connected: {}", host,
                        peer->second.error.empty() ? "see `xenspan hosts`" : peer->second.error));
      continue;
    }
    if (const std::string why = refusal_of(guest, *peer->second.record); !why.empty())
      refuse(guest, host, why);
  }
  return known;
}

// "": it can hold a slice.
std::string XenDomains::refusal_of(const Guest& guest, const HostRecord& record) const {
  const HostRecord own = own_record_();
  const std::string why = xen_refusal(record.name, record.xen, config_.name, own.xen, guest.memory);
  const std::string missing = missing_features(own.cpu, record.cpu);
  if (!why.empty() || missing.empty()) return why;
  return fmt::format(
      "host {}'s processors lack {}: choose hosts of one kind, or mask them with "
      "`cpuid` in the xl file of a home that lacks them, too",
      record.name, missing);
}

void XenDomains::refuse(Guest& guest, const std::string& host, const std::string& why) {
  if (!guest.refused.emplace(host, why).second) return;
  log::warning("domain {} ({}) does without host {}: {}", guest.name, guest.xen.uuid, host, why);
}

void XenDomains::ask(Guest& guest) {
  const auto text = read_text(guest.declared.config);
  if (!text) return alone(guest, text.error().message);
  guest.phase = Phase::kMaking;
  guest.ticks = 0;
  for (const std::string& host : guest.declared.hosts) {
    if (guest.refused.contains(host)) continue;
    ask_host(guest, host, *text);
  }
}

void XenDomains::ask_host(Guest& guest, const std::string& host, const std::string& config) {
  guest.asked.insert(host);
  log::info("domain {}: host {} is asked for a slice", guest.name, host);
  cluster_.send(host, {{"op", "xen-slice-make"},
                       {"uuid", guest.xen.uuid},
                       {"name", guest.name},
                       {"config", config}});
}

bool XenDomains::handle(const std::string& host, const std::string& op, const Json& message) {
  if (op != "xen-slice-made" && op != "xen-slice-refused" && op != "xen-slice-shutdown")
    return false;
  const auto found = guests_.find(text_or(message, "uuid", ""));
  if (found == guests_.end() || !found->second.asked.contains(host)) return true;
  Guest& guest = found->second;
  if (op == "xen-slice-shutdown") {
    // What the guest asked for there holds for all of it.
    if (flag_field(message, "there")) {
      if (Status done = xen_.shut_down(
              guest.xen.id, static_cast<unsigned>(number_or(message, "reason", 0) & 0xff));
          !done)
        log::warning("{}", done.error().message);
    } else if (Domain* domain = domains_.own(found->first)) {
      domain->fail(125, fmt::format("host {}: its slice's domain is gone", host));
    }
    return true;
  }
  if (guest.phase == Phase::kSpanning) {
    if (op == "xen-slice-made")
      prepared(guest, host, {});
    else
      prepared(guest, host, Error{EIO, text_or(message, "error", "host " + host + " refused")});
    return true;
  }
  if (guest.phase != Phase::kMaking) return true;
  if (op == "xen-slice-made")
    guest.made.insert(host);
  else
    refuse(guest, host, text_or(message, "error", "host " + host + " refused"));
  advance(guest);
  return true;
}

// A Domain hears of it by itself.
void XenDomains::host_lost(const std::string& host, const std::string& cause) {
  for (const std::string& uuid : uuids()) {
    const auto found = guests_.find(uuid);
    if (found == guests_.end()) continue;
    Guest& guest = found->second;
    prepared(guest, host, Error{EHOSTDOWN, fmt::format("lost host {}: {}", host, cause)});
    if (guest.phase != Phase::kMaking || !guest.asked.contains(host)) continue;
    guest.made.erase(host);
    refuse(guest, host, fmt::format("lost host {}: {}", host, cause));
    advance(guest);
  }
}

void XenDomains::span(Guest& guest) {
  DomainSpec spec;
  spec.uuid = guest.xen.uuid;
  spec.name = guest.name;
  spec.user = root();
  spec.kind = xenstore::Backend::kXen;
  spec.argv = {"xl", "create", guest.declared.config};
  spec.note = reasons(guest);
  spec.start_within = start_limit();
  Placement& placement = spec.placement;
  HostRecord own = own_record_();
  own.encrypt = own.encrypt || guest.declared.encrypt;
  placement.hosts.push_back(std::move(own));
  std::vector<std::string> accepted;
  for (const std::string& host : guest.declared.hosts) {
    const auto peer = cluster_.peers().find(host);
    if (!guest.made.contains(host) || peer == cluster_.peers().end() || !peer->second.record)
      continue;
    accepted.push_back(host);
    placement.hosts.push_back(*peer->second.record);
  }
  for (const XenDeclaration::Vcpu& vcpu : guest.declared.placement(accepted)) {
    const auto at = std::find(accepted.begin(), accepted.end(), vcpu.host);
    placement.vcpus.push_back(
        {at == accepted.end() ? 0 : static_cast<int>(at - accepted.begin()) + 1, vcpu.cpu});
  }
  const auto transport =
      choose_transport(guest.declared.transport, placement.hosts, "declare \"transport\": \"tcp\"");
  if (!transport) return alone(guest, transport.error().message);
  spec.transport = *transport;
  placement.memory = guest.memory;
  spec.xen = {{"domain", guest.xen.id},
              {"pages", guest.memory / kPage},
              {"hold_us", guest.declared.hold_us}};
  guest.phase = Phase::kSpanning;
  guest.ticks = 0;
  domains_.start(std::move(spec));
}

Status XenDomains::may_hold_slice(const std::string& uuid, const HostRecord& host) {
  const auto found = guests_.find(uuid);
  if (found == guests_.end()) return Error{ENOENT, "this domain does not span"};
  const std::string why = refusal_of(found->second, host);
  return why.empty() ? Status{} : Status{Error{EINVAL, why}};
}

// The domain that will be its slice.
void XenDomains::prepare_slice(const std::string& uuid, const std::string& host,
                               std::function<void(Status done)> done) {
  const auto found = guests_.find(uuid);
  if (found == guests_.end()) return done(Error{ENOENT, "this domain does not span"});
  Guest& guest = found->second;
  const auto text = read_text(guest.declared.config);
  if (!text) return done(text.error());
  guest.joining[host] = std::move(done);
  ask_host(guest, host, *text);
}

void XenDomains::prepared(Guest& guest, const std::string& host, const Status& status) {
  const auto found = guest.joining.find(host);
  if (found == guest.joining.end()) return;
  const auto done = std::move(found->second);
  guest.joining.erase(found);
  if (status) guest.made.insert(host);
  if (status && guest.paused)
    cluster_.send(host, {{"op", "xen-slice-pause"}, {"uuid", guest.xen.uuid}, {"paused", true}});
  done(status);
}

// Its slice there is over, and so is the domain that was made for it.
void XenDomains::end_slice(Guest& guest, const std::string& host) {
  if (guest.asked.erase(host) == 0) return;
  guest.made.erase(host);
  guest.joining.erase(host);
  cluster_.send(host, {{"op", "xen-slice-end"}, {"uuid", guest.xen.uuid}});
}

// The last change before the home's slice is told to take the memory over; and hosts that leave.
void XenDomains::domain_changed(const DomainRecord& record) {
  const auto found = guests_.find(record.uuid);
  if (found == guests_.end() || found->second.phase != Phase::kSpanning) return;
  if (found->second.took_over) {
    if (record.state != DomainState::kRunning) return;
    for (const DomainMember& member : record.members)
      if (member.state == MemberState::kLeft || member.state == MemberState::kFailed ||
          member.forgotten)
        end_slice(found->second, member.host);
    return;
  }
  for (const DomainMember& member : record.members)
    if (member.state != MemberState::kActive) return;
  found->second.took_over = true;
  if (store_ == nullptr) return;
  if (Status written = store_->write(mark(found->second), config_.name); !written)
    log::error("{}", written.error().message);
}

void XenDomains::domain_over(const Domain& domain) {
  const auto found = guests_.find(domain.record().uuid);
  if (found == guests_.end() || found->second.phase != Phase::kSpanning) return;
  Guest& guest = found->second;
  end_slices(guest);
  const auto now = xen_.guest(guest.xen.id);
  if (!now || now->ended) {
    guests_.erase(found);
    return;
  }
  const std::string cause = domain.record().error;
  if (!guest.took_over) return alone(guest, cause);
  stop(guest, cause);
}

std::string XenDomains::reasons(const Guest& guest) const {
  std::string text;
  for (const auto& [host, why] : guest.refused) text += (text.empty() ? "" : "; ") + why;
  return text.empty() ? text : "runs on fewer hosts: " + text;
}

void XenDomains::alone(Guest& guest, const std::string& why) {
  guest.phase = Phase::kAlone;
  std::string text = why;
  if (text.empty())
    for (const auto& [host, reason] : guest.refused) text += (text.empty() ? "" : "; ") + reason;
  log::warning("domain {} ({}) runs on host {} alone: {}", guest.name, guest.xen.uuid, config_.name,
               text);
  end_slices(guest);
  domains_.put_own(record_of(guest, DomainState::kRunning, "runs on its home alone: " + text));
}

void XenDomains::stop(Guest& guest, const std::string& why) {
  guest.phase = Phase::kStopped;
  const auto now = xen_.guest(guest.xen.id);
  if (now && !now->paused)
    if (Status paused = xen_.pause(guest.xen.id); !paused) log::error("{}", paused.error().message);
  log::error("domain {} ({}) is paused: {}", guest.name, guest.xen.uuid, why);
  DomainRecord record = record_of(guest, DomainState::kFailed, why);
  record.exit_status = 125;
  record.ended = static_cast<std::uint64_t>(std::time(nullptr));
  domains_.put_own(std::move(record));
}

void XenDomains::end_slices(Guest& guest) {
  for (const std::string& host : guest.asked) {
    cluster_.send(host, {{"op", "xen-slice-end"}, {"uuid", guest.xen.uuid}});
  }
  guest.asked.clear();
  guest.made.clear();
  guest.joining.clear();
}

DomainRecord XenDomains::record_of(const Guest& guest, DomainState state,
                                   const std::string& why) const {
  DomainRecord record;
  record.uuid = guest.xen.uuid;
  record.name = guest.name;
  record.kind = xenstore::Backend::kXen;
  record.state = state;
  record.home = config_.name;
  record.user = "root";
  record.memory = guest.memory;
  record.command = xenstore::encode_text("xl create " + guest.declared.config);
  record.error = xenstore::encode_text(why);
  record.created = static_cast<std::uint64_t>(std::time(nullptr));
  DomainMember home;
  home.host = config_.name;
  home.vcpus = static_cast<int>(guest.xen.vcpus);
  home.state = state == DomainState::kFailed  ? MemberState::kFailed
               : state == DomainState::kEnded ? MemberState::kLeft
                                              : MemberState::kActive;
  record.members.push_back(std::move(home));
  for (const auto& [host, reason] : guest.refused) {
    if (!is_host_name(host) || host == config_.name) continue;
    DomainMember member;
    member.host = host;
    member.state = MemberState::kFailed;
    member.error = xenstore::encode_text(reason);
    record.members.push_back(std::move(member));
  }
  for (unsigned i = 0; i < guest.xen.vcpus; ++i) record.vcpus.push_back({config_.name, 0, 1});
  return record;
}

}  // namespace xenspan::daemon
