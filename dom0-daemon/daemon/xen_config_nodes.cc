#include "dom0-daemon/daemon/xen_config_nodes.h"

#include <fmt/format.h>

#include <sstream>

#include "base/log.h"
#include "dom0-daemon/daemon/json_fields.h"
#include "xenstore-schema/paths.h"
#include "xenstore-schema/values.h"

namespace xenspan::daemon {
namespace {

// Numbers and words become what a file would have; what is neither stays text, and is found fault
// with there.
Json value_of(const std::string& text) {
  if (text == "true" || text == "false") return text == "true";
  if (const auto number = xenstore::decode_number(text, 0, UINT32_MAX)) return *number;
  return text;
}

Json hosts_of(const std::string& words) {
  Json hosts = Json::array();
  std::istringstream stream(words);
  for (std::string word; stream >> word;) hosts.push_back(word);
  return hosts;
}

}  // namespace

std::optional<XenDeclarationCheck> read_xen_config_nodes(xenstore::Nodes& store,
                                                         const std::string& uuid, unsigned vcpus) {
  const std::string at = xenstore::paths::config(uuid) + "/";
  const auto find = [&](const std::string& node) -> std::optional<std::string> {
    const auto found = store.find(at + node);
    return found ? *found : std::nullopt;
  };
  const auto names = store.list(xenstore::paths::config(uuid));
  if (!names) return std::nullopt;
  Json document = {{"uuid", uuid}};
  for (const std::string& name : *names) {
    const auto text = find(name);
    if (name == xenstore::node::kError || name == xenstore::node::kVcpu || !text) continue;
    if (name == xenstore::node::kHoldUs)
      document["hold_us"] = value_of(*text);
    else if (name == xenstore::node::kHosts)
      document["hosts"] = hosts_of(*text);
    else
      document[name] = value_of(*text);
  }
  if (document.size() == 1) return std::nullopt;  // an error that was told, and no more
  Json placed = Json::array();
  for (unsigned i = 0; i < vcpus; ++i) {
    Json vcpu = Json::object();
    for (const char* node : {xenstore::node::kHost, xenstore::node::kCpu})
      if (const auto text = find(fmt::format("vcpu/{}/{}", i, node)))
        vcpu[node] = node == xenstore::node::kHost ? Json(*text) : value_of(*text);
    placed.push_back(std::move(vcpu));
  }
  document["vcpus"] = std::move(placed);
  return check_xen_declaration(document.dump());
}

void tell_xen_config_error(xenstore::Nodes& store, const std::string& uuid,
                           const std::string& error) {
  const std::string path = xenstore::paths::config(uuid) + "/" + xenstore::node::kError;
  const auto now = store.find(path);
  if (!now || now->value_or("") == xenstore::encode_text(error)) return;
  if (Status told =
          error.empty() ? store.remove(path) : store.write(path, xenstore::encode_text(error));
      !told)
    log::warning("{}", told.error().message);
}

}  // namespace xenspan::daemon
