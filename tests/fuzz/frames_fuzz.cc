// dom0-daemon/daemon: what a peer's xenspand says. Frames of JSON, cut from a byte stream in pieces
// of any size; then the records in them. A message that is accepted can be sent on and read again
// as the same one, and a record that is accepted is in range and comes back the same.
//
// Input: an odd seed of the pieces' sizes, then the bytes; or an even byte, then one message
// without its frame, so that its text can grow and shrink.
#include <algorithm>
#include <map>
#include <string>

#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/framing.h"
#include "dom0-daemon/daemon/host_record.h"
#include "dom0-daemon/daemon/names.h"
#include "dom0-daemon/daemon/placement.h"
#include "dom0-daemon/daemon/stats_report.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"

namespace xenspan::daemon {
namespace {

void check_host(const Json& object) {
  const auto host = host_record_from(object);
  if (!host) {
    DEMAND(!host.error().message.empty());
    return;
  }
  DEMAND(is_host_name(host->name) && host->port != 0);
  DEMAND(!host->cores.empty() && host->cores.size() == host->core_use.size());
  for (const auto* numbers : {&host->cores, &host->core_use}) {
    DEMAND(numbers->size() <= kMaxCores);
    for (const int number : *numbers) DEMAND(number >= 0 && number <= 1'000'000);
  }
  const auto again = host_record_from(to_json(*host));
  DEMAND(again.ok());
  DEMAND(to_json(*again) == to_json(*host));
}

void check_domain(const Json& object) {
  const auto domain = domain_record_from(object);
  if (!domain) {
    DEMAND(!domain.error().message.empty());
    return;
  }
  DEMAND(is_uuid(domain->uuid) && is_domain_name(domain->name) && is_host_name(domain->home));
  DEMAND(!domain->members.empty() && !domain->vcpus.empty());
  DEMAND(domain->vcpus.size() <= kMaxVcpus);
  for (const DomainVcpu& vcpu : domain->vcpus) DEMAND(vcpu.core >= 0 && vcpu.core <= 65535);
  for (const DomainMember& member : domain->members)
    DEMAND(member.vcpus >= 0 && static_cast<unsigned>(member.vcpus) <= kMaxVcpus);
  DEMAND(!domain->exit_status || *domain->exit_status <= 255);
  const auto again = domain_record_from(to_json(*domain));
  DEMAND(again.ok());
  DEMAND(to_json(*again) == to_json(*domain));
  // Statistics of its slices, which the slices wrote.
  std::map<std::string, Json> by_host{{"a", object}};
  if (const Json* stats = object_field(object, "stats")) by_host["b"] = *stats;
  const auto pages = hottest_pages(by_host);
  DEMAND(pages.size() <= kHottestPages);
  DEMAND(!to_line(stats_report(*domain, by_host, pages, {"name"})).empty());
}

void check_message(const Json& message) {
  DEMAND(message.is_object());
  const auto frame = make_frame(message);
  if (frame) {
    FrameReader reader;
    reader.append(*frame);
    const auto again = reader.next();
    DEMAND(again.ok() && again->has_value());
    // Bytes that are not UTF-8 do not get past the parser.
    DEMAND(to_line(**again) == to_line(message));
  }
  check_host(message);
  check_domain(message);
  if (const Json* host = object_field(message, "host")) check_host(*host);
  if (const Json* domain = object_field(message, "domain")) check_domain(*domain);
}

}  // namespace
}  // namespace xenspan::daemon

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan::daemon;
  xenspan::fuzz::Bytes in(data, size);
  std::uint32_t random = in.take<std::uint8_t>();
  if (random % 2 == 0) {
    if (const auto message = parse_object(in.rest())) check_message(*message);
    return 0;
  }
  FrameReader reader;
  while (in.left() > 0) {
    random = random * 1664525u + 1013904223u;
    reader.append(in.take_text((random >> 16) % 700 + 1));
    for (;;) {
      const auto message = reader.next();
      if (!message) return 0;  // the stream is over
      if (!message->has_value()) break;
      check_message(**message);
    }
  }
  return 0;
}
