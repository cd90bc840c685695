#include "dom0-daemon/daemon/host_record.h"

#include <arpa/inet.h>

#include <cerrno>
#include <numeric>

#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

bool read_numbers(const Json& object, const char* key, std::vector<int>& into) {
  const auto numbers = numbers_field(object, key);
  if (!numbers || numbers->size() > kMaxCores) return false;
  for (const std::uint64_t number : *numbers) {
    if (number > 1'000'000) return false;
    into.push_back(static_cast<int>(number));
  }
  return true;
}

bool is_numeric_address(const std::string& text) {
  unsigned char raw[16];
  return inet_pton(AF_INET, text.c_str(), raw) == 1 || inet_pton(AF_INET6, text.c_str(), raw) == 1;
}

}  // namespace

int HostRecord::vcpus() const { return std::accumulate(core_use.begin(), core_use.end(), 0); }

Json to_json(const HostRecord& record) {
  return Json{{"name", record.name},
              {"address", record.address},
              {"port", record.port},
              {"kernel", record.kernel},
              {"version", record.version},
              {"cores", record.cores},
              {"core_use", record.core_use},
              {"others", record.others},
              {"memory", record.memory},
              {"memory_used", record.memory_used},
              {"cpu", cpu_features_text(record.cpu)},
              {"rdma", to_json(record.rdma)},
              {"xen", to_json(record.xen)},
              {"encrypt", record.encrypt}};
}

Result<HostRecord> host_record_from(const Json& object) {
  const auto bad = [](const char* what) {
    return Error{EBADMSG, std::string("host record with a bad ") + what};
  };
  HostRecord record;
  record.name = text_or(object, "name", "");
  if (!is_host_name(record.name)) return bad("name");
  record.address = text_or(object, "address", "");
  if (!is_numeric_address(record.address)) return bad("address");
  const std::uint64_t port = number_or(object, "port", 0);
  if (port == 0 || port > 65535) return bad("port");
  record.port = static_cast<std::uint16_t>(port);
  record.kernel = text_or(object, "kernel", "").substr(0, 64);
  record.version = text_or(object, "version", "");
  if (record.version.empty() || record.version.size() > 64) return bad("version");
  if (!read_numbers(object, "cores", record.cores) || record.cores.empty()) return bad("cores");
  if (!read_numbers(object, "core_use", record.core_use) ||
      record.core_use.size() != record.cores.size())
    return bad("core_use");
  if (object.contains("others") &&
      (!read_numbers(object, "others", record.others) ||
       (!record.others.empty() && record.others.size() != record.cores.size())))
    return bad("others");
  record.memory = number_or(object, "memory", 0);
  record.memory_used = number_or(object, "memory_used", 0);
  const auto cpu = parse_cpu_features(text_or(object, "cpu", ""));
  if (!cpu) return bad("cpu");
  record.cpu = *cpu;
  const Json* rdma = object_field(object, "rdma");
  record.rdma = rdma_port_from(rdma == nullptr ? Json::object() : *rdma);
  if (const Json* xen = object_field(object, "xen")) record.xen = xen_facts_from(*xen);
  record.encrypt = flag_field(object, "encrypt");
  return record;
}

}  // namespace xenspan::daemon
