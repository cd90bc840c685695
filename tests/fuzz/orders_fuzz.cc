// What users and xenspand itself hand over as text: commands on the control socket, the order that
// makes a slice, domain files, addresses, sizes. Nothing throws; what is accepted is in range.
//
// Input: which text it is, then the text.
#include <fmt/format.h>

#include <string>

#include "dom0-daemon/cli/domain_file.h"
#include "dom0-daemon/daemon/cpu_features.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/json_fields.h"
#include "dom0-daemon/daemon/size_text.h"
#include "dom0-daemon/slice/order.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"

namespace xenspan {
namespace {

void check_command(std::string_view text) {
  const auto command = daemon::parse_object(text);
  if (!command) return;
  const std::string line = daemon::to_line(*command);
  DEMAND(line.find('\n') == std::string::npos);
  DEMAND(daemon::is_utf8(line));
  const auto again = daemon::parse_object(line);
  DEMAND(again.ok() && daemon::to_line(*again) == line);
  for (const char* key : {"vcpus", "memory", "fds", "argv", "hosts"}) {
    const auto texts = daemon::texts_field(*command, key);
    const auto numbers = daemon::numbers_field(*command, key);
    const auto* list = daemon::array_field(*command, key);
    DEMAND(!texts || texts->size() == list->size());
    DEMAND(!numbers || numbers->size() == list->size());
  }
}

void check_order(std::string_view text) {
  const auto body = daemon::parse_object(text);
  if (!body) return;
  const auto order = slice::parse_order(*body);
  if (!order) {
    DEMAND(!order.error().message.empty());
    return;
  }
  const auto& made = order->slice;
  DEMAND(!made.hosts.empty() && made.hosts.size() <= dsm::kMaxHosts);
  DEMAND(made.addresses.size() == made.hosts.size() && made.self < made.hosts.size());
  DEMAND(!made.vcpus.empty() && (made.vcpus[0].host == 0 || made.first_hosts != 0));
  for (const auto& vcpu : made.vcpus) DEMAND(vcpu.host < made.hosts.size());
}

void check_domain_file(std::string_view text) {
  const auto file = cli::parse_domain_file(text, "file");
  if (!file) DEMAND(file.error().message.starts_with("file"));
}

void check_words(std::string_view text) {
  if (const auto features = daemon::parse_cpu_features(text))
    DEMAND(daemon::parse_cpu_features(daemon::cpu_features_text(*features)) == features);
  if (const auto peer = daemon::parse_peer(text)) DEMAND(!peer->name.empty() && peer->port != 0);
  if (const auto cpus = daemon::parse_cpu_list(text)) {
    for (const int cpu : *cpus) DEMAND(cpu >= 0);
  }
  if (const auto size = daemon::parse_size(text, "it")) {
    const auto again = daemon::parse_size(fmt::format("{}", *size), "it");
    DEMAND(again.ok() && *again == *size);
    DEMAND(!daemon::size_text(*size).empty());
  }
}

}  // namespace
}  // namespace xenspan

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan;
  fuzz::Bytes in(data, size);
  switch (in.take<std::uint8_t>() % 4) {
    case 0: check_command(in.rest()); break;
    case 1: check_order(in.rest()); break;
    case 2: check_domain_file(in.rest()); break;
    default: check_words(in.rest()); break;
  }
  return 0;
}
