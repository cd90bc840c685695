#include "xenstore-schema/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <type_traits>

namespace xenspan::xenstore {
namespace {

enum class Need { kRequired, kOptional };
enum class TextKind { kLine, kHostName, kHash };

// How one node of a record is read and written.
struct Field {
  const char* node;
  Need need;
  uint64_t min = 0;
  uint64_t max = UINT64_MAX;
  TextKind text = TextKind::kLine;
};

constexpr uint64_t kMaxPort = 65535;
constexpr uint64_t kMaxCount = 65536;  // vCPUs and cores
constexpr uint64_t kMaxExitStatus = 255;

Error bad_value(const std::string& path, std::string_view value, std::string_view expected) {
  return Error{EINVAL,
               fmt::format("xenstore {} is '{}', expected {}: correct it with xenstore-write", path,
                           encode_text(value.substr(0, 80)), expected)};
}

std::string expected_number(const Field& field) {
  if (field.max == UINT64_MAX) return "a number";
  return fmt::format("a number from {} to {}", field.min, field.max);
}

// Value<T>: how a member of that type looks as text.
template <typename T>
struct Value {
  static_assert(std::is_enum_v<T>);
  static std::string encode(T value) { return std::string(to_word(value)); }
  static std::optional<T> decode(const Field&, std::string_view text) { return from_word<T>(text); }
  static std::string expected(const Field&) { return words_of<T>(); }
};

template <typename T>
requires std::is_integral_v<T>
struct Value<T> {
  static std::string encode(T value) { return std::to_string(value); }
  static std::optional<T> decode(const Field& field, std::string_view text) {
    const auto number = decode_number(text, field.min,
                                      std::min<uint64_t>(field.max, std::numeric_limits<T>::max()));
    if (!number) return std::nullopt;
    return static_cast<T>(*number);
  }
  static std::string expected(const Field& field) { return expected_number(field); }
};

template <typename T>
struct Value<std::optional<T>> {
  static std::string encode(const std::optional<T>& value) {
    return value ? Value<T>::encode(*value) : "";
  }
  static std::optional<std::optional<T>> decode(const Field& field, std::string_view text) {
    if (text.empty()) return std::optional<T>();
    const auto value = Value<T>::decode(field, text);
    if (!value) return std::nullopt;
    return value;
  }
  static std::string expected(const Field& field) { return Value<T>::expected(field); }
};

template <>
struct Value<std::string> {
  static std::string encode(const std::string& value) { return encode_text(value); }
  static std::optional<std::string> decode(const Field& field, std::string_view text) {
    const bool good = field.text == TextKind::kHostName ? is_host_name(text)
                      : field.text == TextKind::kHash   ? is_hash(text)
                                                        : is_text(text);
    if (!good) return std::nullopt;
    return std::string(text);
  }
  static std::string expected(const Field& field) {
    if (field.text == TextKind::kHostName) return "a host name";
    if (field.text == TextKind::kHash) return "16 hexadecimal digits";
    return fmt::format("one line of text of at most {} bytes", kMaxText);
  }
};

template <>
struct Value<std::vector<uint32_t>> {
  static std::string encode(const std::vector<uint32_t>& cpus) { return encode_cpus(cpus); }
  static std::optional<std::vector<uint32_t>> decode(const Field&, std::string_view text) {
    return decode_cpus(text);
  }
  static std::string expected(const Field&) { return "a list of CPUs such as 0-3,8"; }
};

template <>
struct Value<std::vector<std::string>> {
  static std::string encode(const std::vector<std::string>& words) { return encode_words(words); }
  static std::optional<std::vector<std::string>> decode(const Field&, std::string_view text) {
    return decode_words(text);
  }
  static std::string expected(const Field&) { return "words with spaces between"; }
};

// Reads one field after another until one fails.
class Reader {
 public:
  Reader(Nodes& nodes, std::string base) : nodes_(nodes), base_(std::move(base)) {}

  template <typename T>
  void operator()(const Field& field, T& target) {
    if (!status_) return;
    const std::string path = fmt::format("{}/{}", base_, field.node);
    const auto text = nodes_.find(path);
    if (!text) {
      status_ = text.error();
    } else if (!*text) {
      if (field.need == Need::kRequired) status_ = missing(path, Value<T>::expected(field));
    } else if (auto value = Value<T>::decode(field, **text)) {
      target = std::move(*value);
    } else {
      status_ = bad_value(path, **text, Value<T>::expected(field));
    }
  }
  const Status& status() const { return status_; }

 private:
  static Error missing(const std::string& path, const std::string& expected) {
    return Error{ENOENT, fmt::format("xenstore {} is missing, expected {}", path, expected)};
  }

  Nodes& nodes_;
  std::string base_;
  Status status_;
};

// Writes one field after another until one fails. A value that could not be read back is not
// written.
class Writer {
 public:
  Writer(Nodes& nodes, std::string base) : nodes_(nodes), base_(std::move(base)) {}

  template <typename T>
  void operator()(const Field& field, const T& value) {
    if (!status_) return;
    const std::string path = fmt::format("{}/{}", base_, field.node);
    const std::string text = Value<T>::encode(value);
    if (text.empty() && field.need == Need::kOptional && !std::is_same_v<T, std::string>) {
      status_ = nodes_.remove(path);
    } else if (!Value<T>::decode(field, text)) {
      status_ = Error{EINVAL, fmt::format("cannot write '{}' to xenstore {}, expected {}",
                                          text.substr(0, 80), path, Value<T>::expected(field))};
    } else {
      status_ = nodes_.write(path, text);
    }
  }
  const Status& status() const { return status_; }

 private:
  Nodes& nodes_;
  std::string base_;
  Status status_;
};

constexpr Field kState{node::kState, Need::kRequired};
constexpr Field kRequest{node::kRequest, Need::kOptional};
constexpr Field kError{node::kError, Need::kOptional};
constexpr Field kCpuFeaturesHash{node::kCpuFeaturesHash, Need::kOptional, 0, 0, TextKind::kHash};
constexpr Field kHeartbeat{node::kHeartbeat, Need::kOptional};
constexpr Field kMemoryFree{node::kMemoryFree, Need::kOptional};
constexpr Field kExitStatus{node::kExitStatus, Need::kOptional, 0, kMaxExitStatus};

// The fields of each record, once for reading and writing. Record is const when writing.
template <typename Record, typename Visitor>
void visit_host(Record& record, Visitor& visit) {
  visit(kState, record.state);
  visit({node::kAddress, Need::kRequired}, record.address);
  visit({node::kPort, Need::kRequired, 1, kMaxPort}, record.port);
  visit({node::kCores, Need::kRequired, 0, kMaxCount}, record.cores);
  visit({node::kCpus, Need::kOptional}, record.cpus);
  visit({node::kMemoryTotal, Need::kOptional}, record.memory_total_kib);
  visit(kMemoryFree, record.memory_free_kib);
  visit({node::kKernel, Need::kOptional}, record.kernel);
  visit({node::kVersion, Need::kOptional}, record.version);
  visit({node::kBackend, Need::kRequired}, record.backend);
  visit({node::kRdma, Need::kOptional}, record.rdma);
  visit({node::kCpuFeatures, Need::kOptional}, record.cpu_features);
  visit(kHeartbeat, record.heartbeat);
  visit(kError, record.error);
}

template <typename Record, typename Visitor>
void visit_domain(Record& record, Visitor& visit) {
  visit({node::kName, Need::kRequired}, record.name);
  visit(kState, record.state);
  visit({node::kHome, Need::kRequired, 0, 0, TextKind::kHostName}, record.home);
  visit({node::kKind, Need::kRequired}, record.kind);
  visit({node::kTransport, Need::kOptional}, record.transport);
  visit({node::kPolicy, Need::kOptional}, record.policy);
  visit({node::kLastMove, Need::kOptional}, record.last_move);
  visit({node::kMemory, Need::kRequired}, record.memory_kib);
  visit({node::kVcpus, Need::kRequired, 1, kMaxCount}, record.vcpus);
  visit({node::kUser, Need::kOptional}, record.user);
  visit({node::kCommand, Need::kOptional}, record.command);
  visit(kExitStatus, record.exit_status);
  visit(kError, record.error);
  visit({node::kCreated, Need::kOptional}, record.created);
}

template <typename Record, typename Visitor>
void visit_member(Record& record, Visitor& visit) {
  visit(kState, record.state);
  visit({node::kVcpus, Need::kOptional, 0, kMaxCount}, record.vcpus);
  visit(kError, record.error);
}

template <typename Record, typename Visitor>
void visit_counters(Record& record, Visitor& visit) {
  visit({node::kFaultsRead, Need::kOptional}, record.faults_read);
  visit({node::kFaultsWrite, Need::kOptional}, record.faults_write);
  visit({node::kFaultsUpgrade, Need::kOptional}, record.faults_upgrade);
  visit({node::kFirstTouches, Need::kOptional}, record.first_touches);
  visit({node::kBytesSent, Need::kOptional}, record.bytes_sent);
  visit({node::kBytesReceived, Need::kOptional}, record.bytes_received);
  visit({node::kPages, Need::kOptional}, record.pages);
  visit({node::kCpuUs, Need::kOptional}, record.cpu_us);
  visit({node::kThreads, Need::kOptional}, record.threads);
}

template <typename Record, typename Visitor>
void visit_vcpu(Record& record, Visitor& visit) {
  visit({node::kHost, Need::kRequired, 0, 0, TextKind::kHostName}, record.host);
  visit({node::kCore, Need::kRequired, 0, kMaxCount}, record.core);
  visit({node::kThreads, Need::kOptional, 0, UINT32_MAX}, record.threads);
}

// Runs write(Writer&) for the nodes below base as one transaction.
template <typename Function>
Status write_below(Nodes& nodes, const std::string& base, Function write) {
  return nodes.atomically([&](Nodes& inside) {
    Writer writer(inside, base);
    write(writer);
    return writer.status();
  });
}

// Runs read(Reader&, Record&) as one transaction; empty is what every attempt starts from.
template <typename Record, typename Function>
Result<Record> read_below(Nodes& nodes, const std::string& base, const Record& empty,
                          Function read) {
  Record record;
  const Status status = nodes.atomically([&](Nodes& inside) -> Status {
    record = empty;
    Reader reader(inside, base);
    read(reader, record);
    return reader.status();
  });
  if (!status) return status.error();
  return record;
}

Status check_member(std::string_view uuid, std::string_view host) {
  if (Status status = check_uuid(uuid); !status) return status;
  return check_host_name(host);
}

// A state or request for a thing that is not there would make a part of it: refuse.
Status change_existing(Nodes& nodes, const std::string& base,
                       const std::function<void(Writer&)>& write) {
  return nodes.atomically([&](Nodes& inside) -> Status {
    const auto state = inside.find(fmt::format("{}/{}", base, node::kState));
    if (!state) return state.error();
    if (!*state) return Error{ENOENT, fmt::format("there is no xenstore {}", base)};
    Writer writer(inside, base);
    write(writer);
    return writer.status();
  });
}

Result<std::vector<std::string>> list_or_none(Nodes& nodes, const std::string& path) {
  auto names = nodes.list(path);
  if (!names && names.error().code == ENOENT) return std::vector<std::string>();
  return names;
}

Result<std::vector<std::string>> list_those(Nodes& nodes, const std::string& path,
                                            bool (*fits)(std::string_view)) {
  auto names = list_or_none(nodes, path);
  if (names) std::erase_if(*names, [&](const std::string& name) { return !fits(name); });
  return names;
}

}  // namespace

Status write_host(Nodes& nodes, const HostRecord& record) {
  if (Status status = check_host_name(record.name); !status) return status;
  return write_below(nodes, paths::host(record.name), [&](Writer& writer) {
    visit_host(record, writer);
    writer(kCpuFeaturesHash, hash_words(record.cpu_features));
  });
}

Result<HostRecord> read_host(Nodes& nodes, const std::string& name) {
  if (Status status = check_host_name(name); !status) return status.error();
  HostRecord empty;
  empty.name = name;
  return read_below(nodes, paths::host(name), empty, [](Reader& reader, HostRecord& record) {
    visit_host(record, reader);
    reader(kCpuFeaturesHash, record.cpu_features_hash);
    reader(kRequest, record.request);
  });
}

Status set_host_state(Nodes& nodes, const std::string& name, HostState state,
                      const std::string& error) {
  if (Status status = check_host_name(name); !status) return status;
  return change_existing(nodes, paths::host(name), [&](Writer& writer) {
    writer(kState, state);
    writer(kError, error);
  });
}

Status set_host_heartbeat(Nodes& nodes, const std::string& name, uint64_t heartbeat,
                          uint64_t memory_free_kib) {
  if (Status status = check_host_name(name); !status) return status;
  return change_existing(nodes, paths::host(name), [&](Writer& writer) {
    writer(kHeartbeat, heartbeat);
    writer(kMemoryFree, memory_free_kib);
  });
}

Status request_host(Nodes& nodes, const std::string& name, HostRequest request) {
  if (Status status = check_host_name(name); !status) return status;
  return change_existing(nodes, paths::host(name),
                         [&](Writer& writer) { writer(kRequest, request); });
}

Status remove_host(Nodes& nodes, const std::string& name) {
  if (Status status = check_host_name(name); !status) return status;
  return nodes.remove(paths::host(name));
}

Status write_domain(Nodes& nodes, const DomainRecord& record) {
  if (Status status = check_uuid(record.uuid); !status) return status;
  return write_below(nodes, paths::domain(record.uuid),
                     [&](Writer& writer) { visit_domain(record, writer); });
}

Result<DomainRecord> read_domain(Nodes& nodes, const std::string& uuid) {
  if (Status status = check_uuid(uuid); !status) return status.error();
  DomainRecord empty;
  empty.uuid = uuid;
  return read_below(nodes, paths::domain(uuid), empty, [](Reader& reader, DomainRecord& record) {
    visit_domain(record, reader);
    reader(kRequest, record.request);
  });
}

Status set_domain_state(Nodes& nodes, const std::string& uuid, DomainState state,
                        const std::string& error, std::optional<uint32_t> exit_status) {
  if (Status status = check_uuid(uuid); !status) return status;
  return change_existing(nodes, paths::domain(uuid), [&](Writer& writer) {
    writer(kState, state);
    writer(kError, error);
    writer(kExitStatus, exit_status);
  });
}

Status request_domain(Nodes& nodes, const std::string& uuid, DomainRequest request) {
  if (Status status = check_uuid(uuid); !status) return status;
  return change_existing(nodes, paths::domain(uuid),
                         [&](Writer& writer) { writer(kRequest, request); });
}

Status remove_domain(Nodes& nodes, const std::string& uuid) {
  if (Status status = check_uuid(uuid); !status) return status;
  return nodes.remove(paths::domain(uuid));
}

Status write_member(Nodes& nodes, const std::string& uuid, const MemberRecord& record) {
  if (Status status = check_member(uuid, record.host); !status) return status;
  return write_below(nodes, paths::member(uuid, record.host),
                     [&](Writer& writer) { visit_member(record, writer); });
}

namespace {

// What was written last, in the order of the fields.
class Told {
 public:
  void operator()(const Field&, const uint64_t& value) { values_.push_back(value); }
  const std::vector<uint64_t>& values() const { return values_; }

 private:
  std::vector<uint64_t> values_;
};

// Passes on what differs from that.
class Changed {
 public:
  Changed(const Counters& told, Writer& writer) : writer_(writer) { visit_counters(told, told_); }
  void operator()(const Field& field, const uint64_t& value) {
    if (told_.values()[next_++] != value) writer_(field, value);
  }

 private:
  Told told_;
  std::size_t next_ = 0;
  Writer& writer_;
};

}  // namespace

Status write_counters(Nodes& nodes, const std::string& uuid, const std::string& host,
                      const Counters& counters, const Counters* told) {
  if (Status status = check_member(uuid, host); !status) return status;
  return write_below(nodes, paths::counters(uuid, host), [&](Writer& writer) {
    if (told == nullptr) return visit_counters(counters, writer);
    Changed changed(*told, writer);
    visit_counters(counters, changed);
  });
}

Result<MemberRecord> read_member(Nodes& nodes, const std::string& uuid, const std::string& host) {
  if (Status status = check_member(uuid, host); !status) return status.error();
  MemberRecord record;
  const Status status = nodes.atomically([&](Nodes& inside) -> Status {
    record = MemberRecord();
    record.host = host;
    Reader own(inside, paths::member(uuid, host));
    visit_member(record, own);
    own(kRequest, record.request);
    if (!own.status()) return own.status();
    Reader below(inside, paths::counters(uuid, host));
    visit_counters(record.counters, below);
    return below.status();
  });
  if (!status) return status.error();
  return record;
}

Status set_member_state(Nodes& nodes, const std::string& uuid, const std::string& host,
                        MemberState state, const std::string& error) {
  if (Status status = check_member(uuid, host); !status) return status;
  return change_existing(nodes, paths::member(uuid, host), [&](Writer& writer) {
    writer(kState, state);
    writer(kError, error);
  });
}

Status request_member(Nodes& nodes, const std::string& uuid, const std::string& host,
                      MemberRequest request) {
  if (Status status = check_member(uuid, host); !status) return status;
  // Adding a host makes its node: it is not a member yet.
  const std::string base = paths::member(uuid, host);
  const auto write = [&](Writer& writer) { writer(kRequest, request); };
  if (request != MemberRequest::kAdd) return change_existing(nodes, base, write);
  return nodes.atomically([&](Nodes& inside) -> Status {
    const auto domain = inside.find(paths::domain(uuid));
    if (!domain) return domain.error();
    if (!*domain) return Error{ENOENT, fmt::format("there is no xenstore {}", paths::domain(uuid))};
    return write_below(inside, base, write);
  });
}

Status remove_member(Nodes& nodes, const std::string& uuid, const std::string& host) {
  if (Status status = check_member(uuid, host); !status) return status;
  return nodes.remove(paths::member(uuid, host));
}

Status write_vcpu(Nodes& nodes, const std::string& uuid, const VcpuRecord& record) {
  if (Status status = check_uuid(uuid); !status) return status;
  return write_below(nodes, paths::vcpu(uuid, record.index),
                     [&](Writer& writer) { visit_vcpu(record, writer); });
}

Result<VcpuRecord> read_vcpu(Nodes& nodes, const std::string& uuid, uint32_t index) {
  if (Status status = check_uuid(uuid); !status) return status.error();
  VcpuRecord empty;
  empty.index = index;
  return read_below(nodes, paths::vcpu(uuid, index), empty,
                    [](Reader& reader, VcpuRecord& record) { visit_vcpu(record, reader); });
}

Status clear_request(Nodes& nodes, const std::string& path) {
  return nodes.remove(fmt::format("{}/{}", path, node::kRequest));
}

Result<std::vector<std::string>> list_hosts(Nodes& nodes) {
  return list_those(nodes, paths::kHosts, is_host_name);
}
Result<std::vector<std::string>> list_domains(Nodes& nodes) {
  return list_those(nodes, paths::kDomains, is_uuid);
}

Result<std::vector<std::string>> list_members(Nodes& nodes, const std::string& uuid) {
  if (Status status = check_uuid(uuid); !status) return status.error();
  return list_those(nodes, paths::members(uuid), is_host_name);
}

Result<std::vector<uint32_t>> list_vcpus(Nodes& nodes, const std::string& uuid) {
  if (Status status = check_uuid(uuid); !status) return status.error();
  auto names = list_or_none(nodes, paths::vcpus(uuid));
  if (!names) return names.error();
  std::vector<uint32_t> indices;
  for (const std::string& name : *names) {
    if (const auto index = decode_number(name, 0, kMaxCount))
      indices.push_back(static_cast<uint32_t>(*index));
  }
  std::sort(indices.begin(), indices.end());
  return indices;
}

}  // namespace xenspan::xenstore
