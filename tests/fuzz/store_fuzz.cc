// xenstore-schema: values that an admin or another host has written. A record that is read can be
// written and is then read the same; a value that is accepted looks the same when it is written
// again; a list from a peer changes nothing outside its prefix.
//
// Input: what it is, then nodes as a byte for the name, a length, and the value; or text.
#include <iterator>
#include <map>
#include <string>

#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"
#include "xenstore-schema/memory_store.h"
#include "xenstore-schema/paths.h"
#include "xenstore-schema/records.h"
#include "xenstore-schema/tree.h"

namespace xenspan::xenstore {
namespace {

const std::string kUuid = "01234567-89ab-cdef-0123-456789abcdef";

constexpr const char* kNames[] = {
    node::kState,   node::kRequest, node::kError,       node::kAddress,         node::kPort,
    node::kCores,   node::kCpus,    node::kMemoryTotal, node::kMemoryFree,      node::kKernel,
    node::kVersion, node::kBackend, node::kCpuFeatures, node::kCpuFeaturesHash, node::kHeartbeat,
    node::kName,    node::kHome,    node::kKind,        node::kMemory,          node::kVcpus,
    node::kUser,    node::kCommand, node::kExitStatus,  node::kCreated,         node::kHost,
    node::kCore,    node::kThreads, "counters/pages",   "counters/cpu-us",      "counters/threads"};

// Nodes as somebody else wrote them.
void fill(MemoryStore& store, const std::string& base, fuzz::Bytes& in) {
  while (in.left() > 1) {
    const char* name = kNames[in.take<std::uint8_t>() % std::size(kNames)];
    const std::string value(in.take_text(in.take<std::uint8_t>()));
    const Status written = store.write(base + "/" + name, value);
    DEMAND(written.ok() || !written.error().message.empty());
  }
}

Tree tree_of(MemoryStore& store, const std::string& base) {
  auto tree = read_tree(store, base);
  DEMAND(tree.ok());
  return *tree;
}

// Reads a record, writes it elsewhere, reads it there and writes it to a third place: both places
// look the same.
template <typename Read, typename Write>
void round_trip(MemoryStore& store, const std::string& base, Read read, Write write) {
  const auto record = read(store);
  if (!record) {
    DEMAND(!record.error().message.empty() && record.error().code != 0);
    return;
  }
  MemoryStore second, third;
  DEMAND(write(second, *record).ok());
  const auto again = read(second);
  DEMAND(again.ok());
  DEMAND(write(third, *again).ok());
  DEMAND(tree_of(second, base) == tree_of(third, base));
  DEMAND(again->state == record->state && again->error == record->error);
}

void records(unsigned kind, fuzz::Bytes& in) {
  MemoryStore store;
  switch (kind) {
    case 0:
      fill(store, paths::host("h"), in);
      round_trip(
          store, paths::host("h"), [](Nodes& nodes) { return read_host(nodes, "h"); },
          [](Nodes& nodes, const HostRecord& record) { return write_host(nodes, record); });
      break;
    case 1:
      fill(store, paths::domain(kUuid), in);
      round_trip(
          store, paths::domain(kUuid), [](Nodes& nodes) { return read_domain(nodes, kUuid); },
          [](Nodes& nodes, const DomainRecord& record) { return write_domain(nodes, record); });
      break;
    default:
      fill(store, paths::member(kUuid, "h"), in);
      round_trip(
          store, paths::member(kUuid, "h"),
          [](Nodes& nodes) { return read_member(nodes, kUuid, "h"); },
          [](Nodes& nodes, const MemberRecord& record) {
            return write_member(nodes, kUuid, record);
          });
      break;
  }
}

void vcpu(fuzz::Bytes& in) {
  MemoryStore store;
  fill(store, paths::vcpu(kUuid, 3), in);
  const auto record = read_vcpu(store, kUuid, 3);
  if (!record) return;
  MemoryStore second;
  DEMAND(write_vcpu(second, kUuid, *record).ok());
  const auto again = read_vcpu(second, kUuid, 3);
  DEMAND(again.ok() && again->host == record->host && again->core == record->core);
}

// A list that a peer sent, applied below its prefix.
void tree(bool replace, fuzz::Bytes& in) {
  MemoryStore store;
  const std::string prefix = paths::domain(kUuid), request = prefix + "/" + node::kRequest;
  DEMAND(store.write("/tool/xenspan/host/a/state", "up").ok());
  DEMAND(store.write(prefix + "2/state", "running").ok());
  DEMAND(store.write(prefix + "/old", "1").ok());
  DEMAND(store.write(request, "destroy").ok());
  Tree list;
  std::map<std::string, std::string> wanted;
  while (in.left() > 1) {
    const std::string name(in.take_text(in.take<std::uint8_t>() % 24));
    const std::string value(in.take_text(in.take<std::uint8_t>() % 24));
    list.emplace_back(name, value);
    wanted[name] = value;
  }
  const Tree before_host = tree_of(store, "/tool/xenspan/host");
  const Status done = replace ? replace_tree(store, prefix, list) : apply_tree(store, prefix, list);
  DEMAND(tree_of(store, "/tool/xenspan/host") == before_host);
  DEMAND(*store.read(prefix + "2/state") == "running");
  if (!replace || !list.empty()) DEMAND(*store.read(request) == "destroy");
  const auto all = store.list("/");
  DEMAND(all.ok() && *all == std::vector<std::string>{"tool"});
  if (!done) return;
  for (const auto& [name, value] : wanted) {
    const bool is_request = name == node::kRequest || name.ends_with("/request");
    const auto found = store.find(name.empty() ? prefix : prefix + "/" + name);
    if (!is_request) DEMAND(found.ok() && found->has_value() && **found == value);
  }
  if (!replace) DEMAND(wanted.contains("old") || *store.read(prefix + "/old") == "1");
}

void values(std::string_view text) {
  if (const auto cpus = decode_cpus(text)) {
    const auto again = decode_cpus(encode_cpus(*cpus));
    DEMAND(again && *again == *cpus);
  }
  if (const auto words = decode_words(text)) {
    const auto again = decode_words(encode_words(*words));
    DEMAND(again && *again == *words);
    DEMAND(is_hash(hash_words(*words)));
  }
  if (const auto number = decode_number(text, 3, 70000)) DEMAND(*number >= 3 && *number <= 70000);
  DEMAND(is_text(encode_text(text)));
  if (is_text(text)) DEMAND(encode_text(text) == text);
  if (const auto path = parse_path(text)) {
    DEMAND(path->host.empty() || is_host_name(path->host));
    DEMAND(path->uuid.empty() || is_uuid(path->uuid));
  }
}

}  // namespace
}  // namespace xenspan::xenstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan::xenstore;
  xenspan::fuzz::Bytes in(data, size);
  const unsigned kind = in.take<std::uint8_t>() % 7;
  switch (kind) {
    case 0:
    case 1:
    case 2: records(kind, in); break;
    case 3: vcpu(in); break;
    case 4: tree(false, in); break;
    case 5: tree(true, in); break;
    default: values(in.rest()); break;
  }
  return 0;
}
