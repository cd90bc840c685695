// make_seeds DIR: what fuzzing starts from, one folder a target in DIR.
//
// Each seed is made by the product's own encoder and is read back by its decoder before it is
// written: an encoder and a decoder that disagree end this program with status 1.
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>

#include "dom0-daemon/cli/domain_file.h"
#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/framing.h"
#include "dom0-daemon/daemon/host_record.h"
#include "dom0-daemon/hypervisor/usermode/elf_file.h"
#include "dom0-daemon/hypervisor/usermode/home_ops.h"
#include "dom0-daemon/hypervisor/usermode/home_state.h"
#include "dom0-daemon/hypervisor/usermode/packet.h"
#include "dom0-daemon/slice/order.h"
#include "dsm-rdma/transport/tcp/handshake.h"
#include "dsm-rdma/wire.h"
#include "tests/fuzz/demand.h"
#include "xenstore-schema/memory_store.h"
#include "xenstore-schema/paths.h"
#include "xenstore-schema/records.h"
#include "xenstore-schema/tree.h"

namespace xenspan {
namespace {

std::filesystem::path seeds;

void save(const std::string& target, const std::string& name, const std::string& bytes) {
  const auto folder = seeds / target;
  std::filesystem::create_directories(folder);
  std::ofstream file(folder / name, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  DEMAND(file.good());
}

template <typename T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// --- dsm-rdma ---

std::string message_bytes(const dsm::wire::Run& run) {
  std::byte bytes[dsm::wire::kMessageBytes];
  dsm::wire::encode(run, 1, bytes);
  dsm::wire::Run again;
  DEMAND(dsm::wire::decode(bytes, {3, 4, 16, 1}, again) == nullptr && again == run);
  return {reinterpret_cast<const char*>(bytes), sizeof bytes};
}
std::string message_bytes(const dsm::ivy::Message& message) {
  return message_bytes(dsm::wire::Run(message));
}

// This message and four that are like it, for the pages behind.
dsm::wire::Run run_of(dsm::ivy::Message message) {
  dsm::wire::Run run(message);
  for (unsigned i = 0; i < 4; ++i) {
    ++message.gfn;
    message.txn += 1 << 21 | 1;
    DEMAND(run.take(message));
  }
  return run;
}

dsm::ivy::Message message_of(dsm::ivy::Kind kind, dsm::Lane lane) {
  dsm::ivy::Message message;
  message.kind = kind;
  message.moves = 3;
  message.from = 2;
  message.to = message.requester = 1;
  message.acks = message.reads = 1;
  message.version = 5;
  message.lane = lane;
  message.txn = 77;
  message.gfn = 9;
  if (kind == dsm::ivy::Kind::kGrant) message.right = dsm::Right::kShared;
  return message;
}

void wire_seeds() {
  using dsm::ivy::Kind;
  std::string all;
  for (const Kind kind :
       {Kind::kReadRequest, Kind::kWriteRequest, Kind::kReadForward, Kind::kWriteForward,
        Kind::kInvalidate, Kind::kGrant, Kind::kInvalidateAck, Kind::kRelease, Kind::kReleased,
        Kind::kOffer, Kind::kSlotOffer, Kind::kSlotAsk, Kind::kSlotRows, Kind::kSlotMoved}) {
    const std::string bytes = message_bytes(message_of(kind, 2));
    save("wire", dsm::wire::name_of(kind), std::string("\2\4\17") + bytes);
    all += bytes;
  }
  save("wire", "run",
       std::string("\2\4\17") + message_bytes(run_of(message_of(Kind::kReadForward, 2))));
  save("wire", "all", std::string("\2\4\17") + all);

  auto page = message_of(Kind::kGrant, 2);
  page.payload = dsm::ivy::Payload::kPage;
  auto zero = page;
  zero.payload = dsm::ivy::Payload::kZero;
  const std::string contents(dsm::kPageSize, 'p');
  // Lane 2, this host's own: answers. Then a page; less than 4096 bytes in all would not hold one.
  save("connection", "answers",
       std::string("\4\1") + message_bytes(zero) +
           message_bytes(message_of(Kind::kInvalidateAck, 2)));
  save("connection", "page",
       std::string("\4\1") + message_bytes(page) + contents + message_bytes(zero));
  // The service lane, the peer's: requests and what a manager sends.
  std::string service;
  for (const Kind kind :
       {Kind::kReadRequest, Kind::kReadForward, Kind::kWriteForward, Kind::kInvalidate})
    service += message_bytes(message_of(kind, 0));
  save("connection", "service", std::string("\3\1") + service);
  save("connection", "runs",
       std::string("\3\1") + message_bytes(run_of(message_of(Kind::kReadRequest, 0))) + service);
  save("connection", "requests",
       std::string("\1\1") + message_bytes(message_of(Kind::kWriteRequest, 2)));
}

void handshake_seeds() {
  using namespace dsm::tcp;
  using namespace dsm::tcp::handshake;
  for (const bool encrypted : {false, true}) {
    const StreamId id{2, 1, 5, kPurposeLane, 3, encrypted};
    const Hello hello = make_hello(id);
    StreamId again;
    DEMAND(read_hello(hello, again) == nullptr && again.from == 2 && again.tag == 3);
    const Verdict verdict = make_verdict(encrypted ? Code::kAccepted : Code::kNotReady);
    Code code{};
    DEMAND(read_verdict(verdict, code));
    save("handshake", encrypted ? "encrypted" : "plain",
         bytes_of(hello) + bytes_of(verdict) + std::string(kChallengeBytes + kProofBytes, '\0'));
  }
}

// --- xenspand ---

const std::string kUuid = "01234567-89ab-cdef-0123-456789abcdef";

void frame_seeds() {
  using namespace daemon;
  HostRecord host;
  host.name = "a";
  host.address = "10.0.0.1";
  host.port = 8117;
  host.kernel = "6.1";
  host.version = "0.1.0";
  host.cores = {0, 999999};  // the largest number is a million
  host.core_use = {1, 0};
  host.memory = 1 << 30;
  DomainRecord domain;
  domain.uuid = kUuid;
  domain.name = "work";
  domain.home = "a";
  domain.user = "root";
  domain.command = "pigz";
  domain.exit_status = 3;
  domain.members.push_back({"a", xenstore::MemberState::kActive, 1, "", {}});
  domain.vcpus.push_back({"a", 0});
  DEMAND(host_record_from(to_json(host)).ok() && domain_record_from(to_json(domain)).ok());
  Json report = to_json(domain);
  report["stats"] =
      Json::parse(R"({"faults":{"read":{"count":3,"latency_ns":{"histogram":[[1024,2],[2048,1]]}}},
    "hottest":[{"gfn":5,"faults":9}],"bytes_sent":7})");
  const Json messages[] = {
      to_json(host),
      to_json(domain),
      report,
      {{"op", "hello"}, {"protocol", 1}, {"host", to_json(host)}, {"peers", Json::array()}},
      {{"op", "domain"}, {"domain", to_json(domain)}}};
  int number = 0;
  for (const Json& message : messages) {
    const auto frame = make_frame(message);
    DEMAND(frame.ok());
    FrameReader reader;
    reader.append(*frame);
    const auto again = reader.next();
    DEMAND(again.ok() && again->has_value() && **again == message);
    save("frames", std::to_string(number++), "s" + *frame + *frame);
    save("frames", "text" + std::to_string(number), "t" + to_line(message));
  }
}

void order_seeds() {
  const nlohmann::json order = {
      {"uuid", kUuid},
      {"name", "work"},
      {"bind", "10.0.0.1"},
      {"user", {{"uid", 1000}, {"gid", 1000}, {"groups", {4, 5}}, {"name", "ada"}}},
      {"self", 0},
      {"hosts",
       {{{"name", "a"}, {"address", "10.0.0.1"}}, {{"name", "b"}, {"address", "10.0.0.2"}}}},
      {"vcpus", {{{"host", 0}, {"core", 0}}, {{"host", 1}, {"core", 2}}}},
      {"memory", 1 << 30},
      {"secret", std::string(64, 'a')},
      {"rundir", "/run/xenspan/a"},
      {"program", "/bin/true"},
      {"argv", {"true"}},
      {"env", {"PATH=/bin"}},
      {"cwd", "/"},
      {"fds", {0, 1, 2}}};
  DEMAND(slice::parse_order(order).ok());
  save("orders", "order", std::string(1, '\1') + order.dump());
  save("orders", "command", std::string(1, '\0') + order.dump());
  const std::string file =
      "name = \"work\"\ntype = \"usermode\"\nmemory = 512 # MiB\nvcpus = 2\nhosts = [ \"a\", \"b\" "
      "]\n"
      "command = [ \"pigz\", \"-k\" ]\n";
  DEMAND(cli::parse_domain_file(file, "file").ok());
  save("orders", "file", std::string(1, '\2') + file);
  int number = 0;
  for (const char* words : {"b=10.0.0.2:8117", "b=[fe80::1]:8117", "0-3,6", "512M", "3GiB",
                            "00000001:00000002:00000003:00000004:00000005:00000006:00000007:"
                            "00000008:00000009"})
    save("orders", "words" + std::to_string(number++), std::string(1, '\3') + words);
}

// --- the home ---

using hypervisor::usermode::Op;
using hypervisor::usermode::Packet;
using hypervisor::usermode::Reader;
using hypervisor::usermode::Writer;

template <typename T>
void demand_next(Reader& reader, const T& value) {
  DEMAND(bytes_of(reader.get<T>()) == bytes_of(value));
}

template <typename... Values>
std::string call_of(Op op, const Values&... values) {
  Packet packet;
  Writer writer(packet);
  (writer.put(values), ...);
  Reader reader(packet);
  (demand_next(reader, values), ...);
  DEMAND(reader.ok() && reader.rest().empty() && packet.size() < 256);
  return std::string(1, '\1') + static_cast<char>(op) + static_cast<char>(packet.size()) +
         std::string(packet.begin(), packet.end());
}

void home_seeds() {
  using namespace hypervisor::usermode;
  const std::uint64_t word = 0x8000001000;
  GuestAction action;
  action.handler = 0x401000;
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  const std::string futex =
      call_of(Op::kFutexEnqueue, word, ~std::uint32_t{0}) +
      call_of(Op::kFutexRequeue, word, word + 4, std::uint32_t{0}, std::uint32_t{1}) +
      call_of(Op::kFutexWake, word + 4, std::uint32_t{1}, ~std::uint32_t{0}) +
      call_of(Op::kFutexCancel, std::uint64_t{1} << 32 | 1) +
      call_of(Op::kFutexSleep, std::uint64_t{1} << 32 | 1, std::int64_t{10});
  const std::string signals =
      call_of(Op::kSigaction, std::int32_t{SIGUSR1}, std::uint8_t{1}, action) +
      call_of(Op::kSendSignal, std::int32_t{0}, std::int32_t{0}, std::int32_t{SIGUSR1}, info) +
      call_of(Op::kPending) + call_of(Op::kTakeSignal, std::uint64_t{0}) +
      call_of(Op::kSignalWait, std::uint64_t{1} << 9, std::int64_t{10}) +
      call_of(Op::kFault, FaultReport{SIGUSR1, 1, 0x401000, 0});
  const std::string rest =
      call_of(Op::kClock) + call_of(Op::kLayout, word) + call_of(Op::kReserveTid) +
      call_of(Op::kTimer, std::int64_t{1000000}, std::int64_t{0}, std::uint8_t{1}) +
      call_of(Op::kAffinity, std::int32_t{0}, std::uint8_t{1}, std::array<std::uint64_t, 16>{1}) +
      call_of(Op::kThreadExit);
  save("home", "futex", futex);
  save("home", "signals", signals);
  save("home", "rest", rest);
  save("home", "all", futex + signals + rest + call_of(Op::kExitGroup, std::int32_t{3}));
}

void role_seeds() {
  using namespace hypervisor::usermode;
  HomeState state;
  state.pid = 100;
  state.next_tid = 110;
  state.threads.resize(2);
  state.threads[0].tid = 100;
  state.threads[1].tid = 101;
  siginfo_t info{};
  info.si_signo = SIGTERM;
  state.pending = {info};
  state.waiters.push_back({std::uint64_t{101} << 32 | 1, ~std::uint32_t{0}, 0x8000001000});
  state.leases.holders = {{0x8000002000, 2}};
  state.layout.brk_start = state.layout.brk = 0x5500010000;
  Mapping mapping;
  mapping.range = {0x5500000000, 0x5500004000};
  mapping.prot = 5;
  mapping.backing = 0;
  mapping.name = "/bin/program";
  state.layout.mappings = {mapping};
  state.layout.contents = {mapping.range};
  OpenFile file;
  file.mode = S_IFREG;
  file.path = "/bin/program";
  state.backings = {{0, file}};
  state.program.path = state.cwd = "/bin";
  state.program.arguments = state.program.environment = {"a", "b=c"};
  state.files = {file};
  const Packet packet = pack(state);
  DEMAND(parse_home_state(packet, 4, 1024, 1 << 30));
  save("role", "one", std::string(packet.begin(), packet.end()));
}

// What these targets make of bytes is their own; a few calls of each kind.
void call_seeds() {
  for (int kind = 0; kind < 3; ++kind) {
    for (int call = 0; call < 48; call += 3) {
      std::string bytes{static_cast<char>(kind), static_cast<char>(call), '\0'};
      for (int arg = 0; arg < 6; ++arg) bytes += {static_cast<char>(arg % 2), '\x10', '\0'};
      const std::uint32_t record[] = {0, 2};
      save("calls", std::to_string(kind) + "-" + std::to_string(call),
           bytes + bytes_of(record) + std::string("/\0\0\0\0\0\0\0", 8));
    }
  }
  std::string calls;
  for (char which = 0; which < 6; ++which) {
    calls += {which, '\1', which, '\0', '\4', '\3', '\2', '\0', '\0'};
    save("layout", std::to_string(which), calls);
  }
}

// --- xenstore ---

std::string node_list(xenstore::MemoryStore& store, const std::string& base, bool names,
                      const std::vector<std::string>& known) {
  const auto tree = xenstore::read_tree(store, base);
  DEMAND(tree.ok() && !tree->empty());
  std::string bytes;
  for (const auto& [name, value] : *tree) {
    if (names) {
      bytes += static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
      continue;
    }
    for (std::size_t i = 0; i < known.size(); ++i) {
      if (known[i] != name) continue;
      bytes += static_cast<char>(i);
      bytes += static_cast<char>(value.size()) + value;
    }
  }
  return bytes;
}

void store_seeds() {
  using namespace xenstore;
  // In the order of store_fuzz.cc.
  const std::vector<std::string> known = {node::kState,       node::kRequest,
                                          node::kError,       node::kAddress,
                                          node::kPort,        node::kCores,
                                          node::kCpus,        node::kMemoryTotal,
                                          node::kMemoryFree,  node::kKernel,
                                          node::kVersion,     node::kBackend,
                                          node::kCpuFeatures, node::kCpuFeaturesHash,
                                          node::kHeartbeat,   node::kName,
                                          node::kHome,        node::kKind,
                                          node::kMemory,      node::kVcpus,
                                          node::kUser,        node::kCommand,
                                          node::kExitStatus,  node::kCreated,
                                          node::kHost,        node::kCore,
                                          node::kThreads,     "counters/pages",
                                          "counters/cpu-us",  "counters/threads"};
  MemoryStore store;
  HostRecord host;
  host.name = "h";
  host.address = "10.0.0.1";
  host.port = 8117;
  host.cores = 2;
  host.cpus = {0, 1, 4};
  host.cpu_features = {"avx", "avx2"};
  DEMAND(write_host(store, host).ok() && read_host(store, "h").ok());
  DomainRecord domain;
  domain.uuid = kUuid;
  domain.name = "work";
  domain.home = "h";
  domain.exit_status = 3;
  DEMAND(write_domain(store, domain).ok() && read_domain(store, kUuid).ok());
  MemberRecord member;
  member.host = "h";
  member.vcpus = 1;
  DEMAND(write_member(store, kUuid, member).ok());
  DEMAND(write_counters(store, kUuid, "h", {}).ok() && read_member(store, kUuid, "h").ok());
  VcpuRecord vcpu;
  vcpu.index = 3;
  vcpu.host = "h";
  DEMAND(write_vcpu(store, kUuid, vcpu).ok() && read_vcpu(store, kUuid, 3).ok());
  save("store", "host", std::string(1, '\0') + node_list(store, paths::host("h"), false, known));
  save("store", "domain", '\1' + node_list(store, paths::domain(kUuid), false, known));
  save("store", "member", '\2' + node_list(store, paths::member(kUuid, "h"), false, known));
  save("store", "vcpu", '\3' + node_list(store, paths::vcpu(kUuid, 3), false, known));
  save("store", "apply", '\4' + node_list(store, paths::vcpu(kUuid, 3), true, known));
  save("store", "replace", '\5' + node_list(store, paths::member(kUuid, "h"), true, known));
  save("store", "cpus", '\6' + encode_cpus({0, 1, 2, 8}));
  save("store", "words", '\6' + encode_words({"avx", "sse"}));
  save("store", "path", '\6' + paths::member(kUuid, "h") + "/state");
}

// --- programs ---

std::string elf_bytes(std::uint16_t type) {
  constexpr std::uint64_t kCode = 0x1000, kData = 0x2000;
  struct Image {
    Elf64_Ehdr header;
    Elf64_Phdr segments[3];
    Elf64_Shdr sections[3];
    Elf64_Sym symbols[2];
    char names[16];
    char code[64];
  };
  static_assert(std::is_trivially_copyable_v<Image>);
  const std::uint64_t base = type == ET_EXEC ? 0x400000 : 0;
  Image image{};
  Elf64_Ehdr& header = image.header;
  const unsigned char ident[] = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
  std::copy(std::begin(ident), std::end(ident), header.e_ident);
  header.e_type = type;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_entry = base + kCode + offsetof(Image, code);
  header.e_phoff = offsetof(Image, segments);
  header.e_shoff = offsetof(Image, sections);
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 3;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 3;
  image.segments[0] = {PT_LOAD,      PF_R | PF_X,  0,     base + kCode, base + kCode,
                       sizeof image, sizeof image, 0x1000};
  image.segments[1] = {PT_LOAD, PF_R | PF_W, 0, base + kData, base + kData, 64, 0x3000, 0x1000};
  image.segments[2] = {PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16};
  image.sections[1] = {
      0, SHT_SYMTAB,       0, 0, offsetof(Image, symbols), sizeof image.symbols, 2, 0,
      8, sizeof(Elf64_Sym)};
  image.sections[2] = {0, SHT_STRTAB, 0, 0, offsetof(Image, names), sizeof image.names, 0, 0, 1, 0};
  image.symbols[1] = {1, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), 0, 1, header.e_entry, 32};
  std::copy_n("_Z4mainv", 9, image.names + 1);
  return bytes_of(image);
}

void elf_seeds() {
  for (const std::uint16_t type : {ET_EXEC, ET_DYN}) {
    const std::string name = type == ET_EXEC ? "fixed" : "pie";
    save("elf", name, elf_bytes(type));
    const auto file = hypervisor::usermode::ElfFile::open(seeds / "elf" / name);
    DEMAND(file.ok() && file->loads().size() == 2);
    DEMAND(file->position_independent() == (type == ET_DYN));
  }
}

}  // namespace
}  // namespace xenspan

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("make_seeds DIR\n", stderr);
    return 2;
  }
  xenspan::seeds = argv[1];
  xenspan::wire_seeds();
  xenspan::handshake_seeds();
  xenspan::frame_seeds();
  xenspan::order_seeds();
  xenspan::home_seeds();
  xenspan::role_seeds();
  xenspan::call_seeds();
  xenspan::store_seeds();
  xenspan::elf_seeds();
  return 0;
}
