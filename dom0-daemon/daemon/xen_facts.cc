#include "dom0-daemon/daemon/xen_facts.h"

#include <fmt/format.h>

namespace xenspan::daemon {

Json to_json(const XenFacts& facts) {
  return Json{
      {"version", facts.version}, {"problem", facts.problem}, {"free_memory", facts.free_memory}};
}

XenFacts xen_facts_from(const Json& object) {
  XenFacts facts;
  facts.version = text_or(object, "version", "").substr(0, 64);
  facts.problem = text_or(object, "problem", "").substr(0, 1024);
  facts.free_memory = number_or(object, "free_memory", 0);
  return facts;
}

std::string xen_refusal(const std::string& host, const XenFacts& facts, const std::string& home,
                        const XenFacts& home_facts, std::uint64_t memory) {
  if (facts.version.empty())
    return fmt::format("host {} runs no Xen: install Xen there, or leave it out of `hosts`", host);
  if (!facts.problem.empty()) return fmt::format("host {}: {}", host, facts.problem);
  if (facts.version != home_facts.version)
    return fmt::format("host {} runs Xen {} and host {} runs Xen {}: install the same on both",
                       host, facts.version, home, home_facts.version);
  if (facts.free_memory < memory)
    return fmt::format(
        "host {} has {} MiB of memory that Xen could give to a domain, and the "
        "domain has {} MiB: end a domain there (`xl list`), or give its Dom0 less "
        "(`xl mem-set 0`)",
        host, facts.free_memory >> 20, memory >> 20);
  return {};
}

}  // namespace xenspan::daemon
