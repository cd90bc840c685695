// What a domain's members need of the others: who is there to join, and xenstore, where requests
// are written and answered.
#include <fmt/format.h>

#include <cerrno>

#include "dom0-daemon/daemon/domain_table.h"

namespace xenspan::daemon {

Result<HostRecord> DomainTable::find_host(const std::string& name) {
  const auto peer = cluster_.peers().find(name);
  if (peer == cluster_.peers().end())
    return Error{ENOENT, fmt::format("no such host: {}: see `xenspan hosts`", name)};
  if (peer->second.state != HostState::kActive || !peer->second.record)
    return Error{EHOSTDOWN,
                 fmt::format("host {} is {}{}{}: see `xenspan hosts`", name,
                             host_state_text(peer->second.state),
                             peer->second.error.empty() ? "" : ": ", peer->second.error)};
  return *peer->second.record;
}

void DomainTable::member_answered(Domain& domain, const Membership::Answer& answer) {
  if (story_ == nullptr) return;
  const auto& members = domain.membership().members();
  const auto member = members.find(answer.host);
  story_->answer_member(
      domain.record().uuid, answer.host, answer.request, answer.status,
      member == members.end() ? std::nullopt : std::optional(member->second.state));
}

Status DomainTable::may_hold_slice(const Domain& domain, const HostRecord& host) {
  if (xen_ == nullptr) return Error{ENODEV, "there is no Xen here"};
  return xen_->may_hold_slice(domain.record().uuid, host);
}

void DomainTable::prepare_slice(const Domain& domain, const std::string& host,
                                std::function<void(Status done)> done) {
  if (xen_ == nullptr) return done(Error{ENODEV, "there is no Xen here"});
  xen_->prepare_slice(domain.record().uuid, host, std::move(done));
}

Status DomainTable::member_requested(const std::string& uuid, const std::string& host,
                                     const std::string& word) {
  if (Domain* domain = own(uuid)) {
    domain->ask_member(host, word);
    return {};
  }
  const DomainRecord* known = record(uuid);
  if (known == nullptr) return Error{ENOENT, "this xenspand knows no such domain"};
  if (known->over()) return Error{ESRCH, fmt::format("domain {} has ended", known->name)};
  return Error{EXDEV, fmt::format("host {} is the home of domain {}: write the request into its "
                                  "xenstore, or use `xenspan`",
                                  known->home, known->name)};
}

void DomainTable::member_withdrawn(const std::string& uuid, const std::string& host) {
  if (Domain* domain = own(uuid)) domain->withdraw_member(host);
}

Status DomainTable::write_member_request(const std::string& uuid, const std::string& host,
                                         xenstore::MemberRequest request) {
  if (story_ == nullptr) return Error{EAGAIN, "xenstore is not there yet: try again"};
  return story_->request_member(uuid, host, request);
}

}  // namespace xenspan::daemon
