#include "tests/bench/xen_fault_bench.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <thread>

#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/xen/capabilities.h"
#include "dom0-daemon/hypervisor/xen/monitor_ring.h"
#include "frontend-drivers/testguest/layout.h"
#include "frontend-drivers/testguest/touch_orders.h"
#include "tests/bench/process.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {

using namespace hypervisor::xen;  // NOLINT: this file is about it

namespace {

constexpr dsm::Gfn kFirst = TOUCH_ADDRESS >> dsm::kPageShift;
constexpr unsigned kMostPages = 1024;
constexpr int kPatienceMs = 60'000;

double now_us() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

struct Parts {
  Samples event, right, copy, wire;
};

Result<std::string> output_of(const std::vector<std::string>& argv) {
  auto command = Process::start(argv);
  if (!command) return command.error();
  Process::End end = command->finish();
  if (end.status != 0)
    return Error{EIO, fmt::format("`{} {}` ended with {}", argv[0], argv[1], end.status)};
  return end.output;
}

// The guest, from `xl create` to `xl destroy`.
class Subject {
 public:
  static Result<std::unique_ptr<Subject>> create(const XenFaultOptions& options) {
    std::unique_ptr<Subject> subject(new Subject);
    const std::string file = fmt::format("/tmp/{}.cfg", subject->name_);
    std::ofstream(file) << fmt::format(
        "name = \"{}\"\ntype = \"pvh\"\nkernel = \"{}\"\nmemory = 16\nvcpus = 1\n"
        "cmdline = \"run=touch touch={}\"\n",
        subject->name_, options.testguest, options.pages);
    const auto made = output_of({"xl", "create", "-q", file});
    ::unlink(file.c_str());
    if (!made) return made.error();
    subject->created_ = true;
    const auto id = output_of({"xl", "domid", subject->name_});
    if (!id) return id.error();
    subject->id_ = static_cast<DomainId>(std::stoul(*id));
    return subject;
  }
  ~Subject() {
    if (!created_) return;
    if (const auto gone = output_of({"xl", "destroy", name_}); !gone)
      say_skipped("the guest stays");
  }
  DomainId id() const { return id_; }

 private:
  Subject() : name_(fmt::format("xenspan-bench-{}", ::getpid())) {}
  const std::string name_;
  bool created_ = false;
  DomainId id_ = 0;
};

// Pages of the guest, mapped here.
class View {
 public:
  View(XenCalls& xen, DomainId domain) : xen_(xen), domain_(domain) {
    void* got = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got != MAP_FAILED) at_ = static_cast<std::byte*>(got);
  }
  ~View() {
    if (at_ != nullptr) ::munmap(at_, kBytes);
  }
  std::byte* page(unsigned place, dsm::Gfn gfn) {
    std::byte* at = at_ + place * dsm::kPageSize;
    return at_ != nullptr && xen_.map(domain_, gfn, at) == 0 ? at : nullptr;
  }

 private:
  static constexpr std::size_t kBytes = (kMostPages + 1) * dsm::kPageSize;
  XenCalls& xen_;
  const DomainId domain_;
  std::byte* at_ = nullptr;
};

class Measuring {
 public:
  Measuring(XenCalls& xen, DomainId domain, unsigned pages)
      : xen_(xen), domain_(domain), pages_(pages), view_(xen, domain) {}

  Status run(Parts& parts) {
    auto* gate = view_.page(kMostPages, GATE_ADDRESS >> dsm::kPageShift);
    auto ring = MonitorRing::open(xen_, domain_);
    if (!ring) return ring.error();
    if (gate == nullptr) return Error{EFAULT, "the guest's pages cannot be mapped"};
    gate_ = reinterpret_cast<std::uint64_t*>(gate);
    if (Status written = carry_out(**ring, TOUCH_WRITE, nullptr); !written) return written;
    for (unsigned i = 0; i < pages_; ++i) {
      frames_[i] = view_.page(i, kFirst + i);
      if (frames_[i] == nullptr) return Error{EFAULT, "the guest's pages cannot be mapped"};
    }
    if (const int error = xen_.set_access(domain_, kFirst, pages_, Access::kNone); error != 0)
      return system_error(error, "rights cannot be set");
    Status read = carry_out(**ring, TOUCH_READ, &parts);
    xen_.set_access(domain_, kFirst, pages_, Access::kAll);
    if (read && word(3).load() != 0) return Error{EILSEQ, "the guest has read wrong values"};
    return read;
  }

 private:
  std::atomic_ref<std::uint64_t> word(unsigned index) { return std::atomic_ref(gate_[index]); }

  // The way from an answer to the next event is the guest's way back to its instruction and Xen's
  // way from the next one's fault to here: a round trip.
  Status carry_out(MonitorRing& ring, std::uint64_t order, Parts* parts) {
    word(1).store(order);
    word(0).store(++orders_);
    double answered = 0;
    const double end = now_us() + kPatienceMs * 1e3;
    while (word(2).load() != orders_) {
      pollfd ready{ring.fd(), POLLIN, 0};
      ::poll(&ready, 1, 1);
      const int error = ring.take([&](const VcpuEvent& event) {
        if (parts != nullptr && answered != 0) parts->event.add(now_us() - answered);
        if (parts != nullptr) serve(event, *parts);
        ring.answer(event);
        answered = now_us();
      });
      if (error != 0) return system_error(error, "the monitor ring");
      if (now_us() > end) return Error{ETIMEDOUT, "the guest does not carry out an order"};
    }
    return {};
  }
  void serve(const VcpuEvent& event, Parts& parts) {
    if (event.gfn < kFirst || event.gfn >= kFirst + pages_) return;
    double before = now_us();
    xen_.set_access(domain_, event.gfn, 1, Access::kReadExecute);
    double after = now_us();
    parts.right.add(after - before);
    std::memcpy(copy_.data(), frames_[event.gfn - kFirst], dsm::kPageSize);
    parts.copy.add(now_us() - after);
  }

  XenCalls& xen_;
  const DomainId domain_;
  const unsigned pages_;
  View view_;
  std::uint64_t* gate_ = nullptr;
  std::uint64_t orders_ = 0;
  std::array<std::byte*, kMostPages> frames_{};
  std::array<std::byte, dsm::kPageSize> copy_{};
};

bool all_of(int socket, std::byte* bytes, std::size_t count, bool send) {
  for (std::size_t done = 0; done < count;) {
    const ssize_t n = send ? ::send(socket, bytes + done, count - done, MSG_NOSIGNAL)
                           : ::recv(socket, bytes + done, count - done, 0);
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

// A request of 64 bytes and a page with its message back, over TCP on this machine's loopback: the
// part of the wire that the processors do.
Status measure_wire(unsigned count, Samples& wire) {
  constexpr std::size_t kRequest = 64, kAnswer = 64 + dsm::kPageSize;
  UniqueFd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof name;
  auto* address = reinterpret_cast<sockaddr*>(&name);
  if (::bind(listening.get(), address, sizeof name) != 0 || ::listen(listening.get(), 1) != 0 ||
      ::getsockname(listening.get(), address, &length) != 0 ||
      ::connect(client.get(), address, sizeof name) != 0)
    return system_error(errno, "no connection over loopback", "ip link set lo up");
  const UniqueFd server(::accept(listening.get(), nullptr, nullptr));
  const int now = 1;
  for (const int each : {client.get(), server.get()})
    ::setsockopt(each, IPPROTO_TCP, TCP_NODELAY, &now, sizeof now);
  std::thread answering([&] {
    std::array<std::byte, kAnswer> bytes{};
    while (all_of(server.get(), bytes.data(), kRequest, false) &&
           all_of(server.get(), bytes.data(), kAnswer, true)) {
    }
  });
  std::array<std::byte, kAnswer> bytes{};
  bool good = true;
  for (unsigned i = 0; i < count && good; ++i) {
    const double before = now_us();
    good = all_of(client.get(), bytes.data(), kRequest, true) &&
           all_of(client.get(), bytes.data(), kAnswer, false);
    wire.add(now_us() - before);
  }
  ::shutdown(client.get(), SHUT_RDWR);
  answering.join();
  return good ? Status{} : system_error(errno, "the connection over loopback was lost");
}

void show(const Parts& parts) {
  Measurement result{
      .bench = "xen.fault", .unit = "us", .measured = {}, .baseline = {}, .hosts = {}};
  const double event = parts.event.median(), right = parts.right.median(),
               copy = parts.copy.median(), wire = parts.wire.median();
  result.measured.add(event + right + copy + wire);
  result.baseline = parts.wire;
  result.ratio = wire > 0 ? (event + right + copy + wire) / wire : 0;
  result.more = {{"vm_event", event},       {"vm_event_p99", parts.event.p99()},
                 {"set_mem_access", right}, {"copy", copy},
                 {"wire_loopback", wire},   {"faults", parts.right.size()}};
  print(result);
}

}  // namespace

Status measure_xen_fault(const XenFaultOptions& options) {
  auto xen = XenCalls::open();
  if (!xen) return say_skipped(xen.error().message), Status{};
  const auto host = (*xen)->host();
  if (!host) return say_skipped(host.error().message), Status{};
  if (const Status can = may_hold_slice(*host); !can)
    return say_skipped(can.error().message), Status{};
  XenFaultOptions sized = options;
  sized.pages = std::clamp(options.pages, 2u, kMostPages);
  const auto subject = Subject::create(sized);
  if (!subject) return subject.error();
  Parts parts;
  if (Status done = Measuring(**xen, (*subject)->id(), sized.pages).run(parts); !done) return done;
  if (Status done = measure_wire(sized.pages, parts.wire); !done) return done;
  show(parts);
  return {};
}

}  // namespace xenspan::bench
