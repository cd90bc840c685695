#include "xenstore-schema/schema.h"

#include "xenstore-schema/paths.h"
#include "xenstore-schema/values.h"

namespace xenspan::xenstore {
namespace {

constexpr std::string_view kHost =
    "host's xenspand";  // the daemon of the host that the node is about
constexpr std::string_view kHome = "home's xenspand";  // the daemon of the domain's home
constexpr std::string_view kAll = "every xenspand, xenspan";
constexpr std::string_view kPeople = "xenspan, admin";

constexpr SchemaNode kSchema[] = {
    {"/tool/xenspan/host/<name>/state", "word", kHost, kAll},
    {"/tool/xenspan/host/<name>/request", "word", kPeople, kHost},
    {"/tool/xenspan/host/<name>/error", "text", kHost, kPeople},
    {"/tool/xenspan/host/<name>/address", "text", kHost, kAll},
    {"/tool/xenspan/host/<name>/port", "number", kHost, kAll},
    {"/tool/xenspan/host/<name>/backend", "word", kHost, kAll},
    {"/tool/xenspan/host/<name>/rdma", "text", kHost, kAll},
    {"/tool/xenspan/host/<name>/cores", "number", kHost, kAll},
    {"/tool/xenspan/host/<name>/cpus", "cpus", kHost, kAll},
    {"/tool/xenspan/host/<name>/memory-total", "KiB", kHost, kAll},
    {"/tool/xenspan/host/<name>/memory-free", "KiB", kHost, kAll},
    {"/tool/xenspan/host/<name>/kernel", "text", kHost, kPeople},
    {"/tool/xenspan/host/<name>/version", "text", kHost, kAll},
    {"/tool/xenspan/host/<name>/cpu-features", "words", kHost, kAll},
    {"/tool/xenspan/host/<name>/cpu-features-hash", "hash", kHost, kAll},
    {"/tool/xenspan/host/<name>/heartbeat", "time", kHost, kAll},

    {"/tool/xenspan/domain/<uuid>/name", "text", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/state", "word", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/request", "word", kPeople, kHome},
    {"/tool/xenspan/domain/<uuid>/error", "text", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/home", "host name", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/kind", "word", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/transport", "word", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/policy", "word", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/last-move", "text", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/memory", "KiB", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/vcpus", "number", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/user", "text", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/command", "text", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/exit-status", "number", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/created", "time", kHome, kPeople},

    {"/tool/xenspan/domain/<uuid>/member/<host>/state", "word", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/member/<host>/request", "word", kPeople, kHome},
    {"/tool/xenspan/domain/<uuid>/member/<host>/error", "text", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/vcpus", "number", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/faults-read", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/faults-write", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/faults-upgrade", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/first-touches", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/bytes-sent", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/bytes-received", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/pages", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/cpu-us", "number", kHome, kPeople},
    {"/tool/xenspan/domain/<uuid>/member/<host>/counters/threads", "number", kHome, kPeople},

    {"/tool/xenspan/domain/<uuid>/vcpu/<n>/host", "host name", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/vcpu/<n>/core", "number", kHome, kAll},
    {"/tool/xenspan/domain/<uuid>/vcpu/<n>/threads", "number", kHome, kPeople},

    {"/tool/xenspan/config/<uuid>/config", "text", "admin", kHome},
    {"/tool/xenspan/config/<uuid>/hosts", "words", "admin", kHome},
    {"/tool/xenspan/config/<uuid>/vcpu/<n>/host", "host name", "admin", kHome},
    {"/tool/xenspan/config/<uuid>/vcpu/<n>/cpu", "number", "admin", kHome},
    {"/tool/xenspan/config/<uuid>/encrypt", "word", "admin", kHome},
    {"/tool/xenspan/config/<uuid>/hold-us", "number", "admin", kHome},
    {"/tool/xenspan/config/<uuid>/error", "text", kHome, "admin"},
};

bool fits(std::string_view part, std::string_view wanted) {
  if (wanted == "<name>" || wanted == "<host>") return is_host_name(part);
  if (wanted == "<uuid>") return is_uuid(part);
  if (wanted == "<n>") return decode_number(part, 0, UINT32_MAX).has_value();
  return part == wanted;
}

bool matches(std::string_view path, std::string_view pattern) {
  for (;;) {
    const size_t in_path = path.find('/');
    const size_t in_pattern = pattern.find('/');
    if (!fits(path.substr(0, in_path), pattern.substr(0, in_pattern))) return false;
    if (in_path == std::string_view::npos || in_pattern == std::string_view::npos)
      return in_path == in_pattern;
    path.remove_prefix(in_path + 1);
    pattern.remove_prefix(in_pattern + 1);
  }
}

}  // namespace

std::span<const SchemaNode> schema() { return kSchema; }

const SchemaNode* find_in_schema(std::string_view path) {
  for (const SchemaNode& row : kSchema) {
    if (matches(path, row.path)) return &row;
  }
  return nullptr;
}

}  // namespace xenspan::xenstore
