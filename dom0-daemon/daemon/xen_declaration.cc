#include "dom0-daemon/daemon/xen_declaration.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "dom0-daemon/daemon/json_fields.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

constexpr std::uint64_t kMostHosts = 64, kMostCpu = 4095, kMostHoldUs = 1'000'000;
constexpr std::size_t kMostText = 1 << 20;

// One walk through the document. Each step notes what it finds and goes on.
class Checker {
 public:
  XenDeclarationCheck run(std::string_view text) {
    Json document;
    try {
      if (text.size() > kMostText) throw Json::other_error::create(501, "too long", nullptr);
      document = Json::parse(text);
    } catch (const Json::exception& error) {
      // "[json.exception.parse_error.101] parse error at line 2, column 3: ..."
      std::string what = error.what();
      if (const auto bracket = what.find("] "); bracket != what.npos) what.erase(0, bracket + 2);
      fault("", "not JSON: " + what, "correct it there");
      return std::move(result_);
    }
    if (!document.is_object()) {
      fault("", "not an object", "write {\"name\": ..., \"hosts\": [...], ...}");
      return std::move(result_);
    }
    for (const auto& [key, value] : document.items()) member(key, value);
    whole(document);
    return std::move(result_);
  }

 private:
  void fault(const std::string& where, const std::string& what, const std::string& remedy) {
    result_.faults.push_back(fmt::format("{}: {}: {}", where.empty() ? "/" : where, what, remedy));
  }

  void member(const std::string& key, const Json& value) {
    const std::string where = "/" + key;
    XenDeclaration& into = result_.declaration;
    if (key == "name")
      return text(where, value, into.name, is_domain_name,
                  "a domain's name of letters, digits, - and _");
    if (key == "uuid")
      return text(where, value, into.uuid, is_uuid, "a uuid as `xl list -v` shows it");
    if (key == "config")
      return text(where, value, into.config, is_path, "an absolute path of an xl file");
    if (key == "hosts") return hosts(value);
    if (key == "vcpus") return vcpus(value);
    if (key == "transport") return transport(value);
    if (key == "encrypt") {
      if (!value.is_boolean()) return fault(where, "not true or false", "write one of them");
      into.encrypt = value.get<bool>();
      return;
    }
    if (key == "hold_us") {
      const auto number = whole_number(value);
      if (!number || *number > kMostHoldUs)
        return fault(where, "not a number of microseconds from 0 to 1000000", "leave it out");
      into.hold_us = static_cast<unsigned>(*number);
      return;
    }
    fault(where, "unknown member", "see xenspan-domain(5) for those there are");
  }

  static bool is_path(std::string_view text) { return text.starts_with('/'); }

  void text(const std::string& where, const Json& value, std::string& into,
            bool (*good)(std::string_view), const char* kind) {
    if (value.is_string() && good(value.get_ref<const std::string&>())) {
      into = value.get<std::string>();
      return;
    }
    fault(where, fmt::format("not {}", kind), fmt::format("write {} in quotes", kind));
  }

  void hosts(const Json& value) {
    if (!value.is_array() || value.empty() || value.size() > kMostHosts)
      return fault("/hosts", "not a list of 1 to 64 hosts",
                   "name the hosts beside the home, as [\"b\"]");
    for (std::size_t i = 0; i < value.size(); ++i) {
      const std::string where = fmt::format("/hosts/{}", i);
      std::string host;
      text(where, value[i], host, is_host_name, "a host's name as `xenspan hosts` shows it");
      if (host.empty()) continue;
      auto& all = result_.declaration.hosts;
      if (std::find(all.begin(), all.end(), host) != all.end()) {
        fault(where, fmt::format("\"{}\" is named twice", host), "remove one");
        continue;
      }
      all.push_back(host);
    }
  }

  void vcpus(const Json& value) {
    if (!value.is_array() || value.empty() || value.size() > kMostXenVcpus)
      return fault("/vcpus", "not a list of 1 to 64 vCPUs",
                   "write one entry a vCPU of the xl file, as [{}, {\"host\": \"b\"}]");
    for (std::size_t i = 0; i < value.size(); ++i) {
      const std::string where = fmt::format("/vcpus/{}", i);
      XenDeclaration::Vcpu vcpu;
      if (!value[i].is_object()) {
        fault(where, "not an object", "write {} or {\"host\": \"b\", \"cpu\": 0}");
      } else {
        for (const auto& [key, inner] : value[i].items()) {
          const std::string inside = where + "/" + key;
          if (key == "host") {
            text(inside, inner, vcpu.host, is_host_name, "a host's name");
          } else if (key == "cpu") {
            const auto cpu = whole_number(inner);
            if (!cpu || *cpu > kMostCpu)
              fault(inside, "not a processor's number",
                    "take one of `xl info -n`, or leave it out");
            else
              vcpu.cpu = static_cast<int>(*cpu);
          } else {
            fault(inside, "unknown member", "a vCPU has \"host\" and \"cpu\"");
          }
        }
      }
      result_.declaration.vcpus.push_back(std::move(vcpu));
    }
  }

  void transport(const Json& value) {
    const auto wish = value.is_string() ? transport_wish_from(value.get<std::string>())
                                        : std::optional<TransportWish>();
    if (!wish)
      return fault("/transport", "not a transport", fmt::format("use {}", kTransportWords));
    result_.declaration.transport = *wish;
  }

  // What only the whole can tell.
  void whole(const Json& document) {
    XenDeclaration& all = result_.declaration;
    if (!document.contains("name") && !document.contains("uuid"))
      fault("/", "neither name nor uuid", "say which domain this is about");
    if (!document.contains("config"))
      fault("/config", "missing", "name the file that `xl create` was given");
    if (!document.contains("hosts")) fault("/hosts", "missing", "name the hosts beside the home");
    if (!document.contains("vcpus")) fault("/vcpus", "missing", "write one entry a vCPU, as {}");
    if (!document.contains("hosts") || !document.contains("vcpus")) return;
    bool away = false;
    for (std::size_t i = 0; i < all.vcpus.size(); ++i) {
      const std::string& host = all.vcpus[i].host;
      if (host.empty()) continue;
      away = true;
      if (std::find(all.hosts.begin(), all.hosts.end(), host) == all.hosts.end())
        fault(fmt::format("/vcpus/{}/host", i), fmt::format("\"{}\" is not in /hosts", host),
              "add it there; the home's vCPUs have no \"host\"");
    }
    if (!all.vcpus.empty() && !all.vcpus[0].host.empty())
      fault("/vcpus/0/host", "vCPU 0 cannot leave the home", "leave its \"host\" out");
    if (!away && !all.vcpus.empty())
      fault("/vcpus", "no vCPU is placed on another host", "give one a \"host\"");
  }

  XenDeclarationCheck result_;
};

}  // namespace

std::vector<XenDeclaration::Vcpu> XenDeclaration::placement(
    const std::vector<std::string>& accepted) const {
  std::vector<Vcpu> placed = vcpus;
  for (Vcpu& vcpu : placed)
    if (!vcpu.host.empty() &&
        std::find(accepted.begin(), accepted.end(), vcpu.host) == accepted.end())
      vcpu = {};
  return placed;
}

XenDeclarationCheck check_xen_declaration(std::string_view text) { return Checker().run(text); }

XenDeclarations read_xen_declarations(const std::string& folder) {
  XenDeclarations all;
  std::set<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator each(folder, error), end; !error && each != end;
       each.increment(error))
    if (each->path().extension() == ".json") files.insert(each->path().string());
  for (const std::string& file : files) {
    std::ifstream stream(file);
    std::ostringstream text;
    text << stream.rdbuf();
    auto checked = check_xen_declaration(text.str());
    if (checked.faults.empty())
      all.good.push_back(std::move(checked.declaration));
    else
      all.faults.push_back(fmt::format("{} is not used: {}: run `xenspan check {}`", file,
                                       checked.faults.front(), file));
  }
  return all;
}

const XenDeclaration* find_xen_declaration(const std::vector<XenDeclaration>& all,
                                           const std::string& name, const std::string& uuid) {
  for (const XenDeclaration& each : all)
    if ((each.name.empty() || each.name == name) && (each.uuid.empty() || each.uuid == uuid))
      return &each;
  return nullptr;
}

}  // namespace xenspan::daemon
