#include "dom0-daemon/hypervisor/usermode/slice.h"

#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/own_descriptors.h"
#include "dom0-daemon/hypervisor/usermode/clock.h"
#include "dom0-daemon/hypervisor/usermode/runtime_signals.h"
#include "dom0-daemon/hypervisor/usermode/service_threads.h"
#include "dom0-daemon/hypervisor/usermode/stream_line.h"
#include "dom0-daemon/hypervisor/usermode/thread_state.h"

namespace xenspan::hypervisor::usermode {
namespace {

// Lines a remote slice opens when it joins, or when the home is another: descriptors that come
// later could meet the guest's own numbers at the home for a moment, so most threads find theirs
// ready.
constexpr std::size_t kReadyLines = 16;

class LocalLine final : public Line {
 public:
  LocalLine(Home& home, std::shared_ptr<HomeThread> thread)
      : home_(home), thread_(std::move(thread)) {}
  bool call(Op op, std::uint64_t signal_mask, const Packet& request, Packet& answer) override {
    thread_->tell(signal_mask);
    home_.serve(*thread_, op, request, answer);
    return true;
  }

 private:
  Home& home_;
  std::shared_ptr<HomeThread> thread_;
};

}  // namespace

Result<std::unique_ptr<Slice>> Slice::create(Ended ended, Failed failed) {
  std::unique_ptr<Slice> slice(new Slice(std::move(ended), std::move(failed)));
  if (Status status = install_signal_handlers(); !status) return status.error();
  auto view = GuestView::create(slice->layout_);
  if (!view) return view.error();
  slice->view_ = std::move(*view);
  return slice;
}

Status Slice::join(const SliceConfig& config, UniqueFd listening) {
  config_ = config;
  home_host_ = config_.home;
  engine_home_ = config_.engine_home;
  own_descriptors_from = config_.descriptor_limit;
  places_.assign(config_.vcpus);
  if (Status status = start_engine(std::move(listening)); !status) return status;
  config_.hosts.resize(dsm::kMaxHosts);
  config_.addresses.resize(dsm::kMaxHosts);
  config_.ports.resize(dsm::kMaxHosts);
  return is_home() ? start_home() : start_remote();
}

Status Slice::start_engine(UniqueFd listening) {
  dsm::tcp::Acceptor::Config acceptor;
  acceptor.listening = std::move(listening);
  acceptor.secret = config_.secret;
  acceptor.self = config_.self;
  const auto hosts_now = static_cast<unsigned>(config_.hosts.size());
  const unsigned most_hosts = config_.hosts_may_join ? dsm::kMaxHosts : hosts_now;
  acceptor.hosts = most_hosts;
  acceptor.epoch = config_.epoch;
  acceptor.encrypt = config_.encrypt;
  acceptor.log = [](const std::string& line) { log::warning("{}", line); };
  auto accepting = dsm::tcp::Acceptor::start(std::move(acceptor));
  if (!accepting) return accepting.error();
  acceptor_ = std::move(*accepting);

  dsm::tcp::MeshConfig mesh;
  for (std::size_t host = 0; host < config_.hosts.size(); ++host)
    mesh.hosts.push_back({config_.hosts[host], config_.addresses[host], config_.ports[host],
                          host < config_.incarnations.size() ? config_.incarnations[host] : 0});
  mesh.pages = kWindowPages;
  auto transport = config_.connect ? config_.connect(mesh, *acceptor_)
                                   : dsm::tcp::connect_mesh(mesh, *acceptor_);
  if (!transport) return transport.error();
  transport_ = std::move(*transport);

  dsm::EngineConfig engine;
  engine.self = config_.self;
  engine.hosts = config_.first_hosts != 0 ? config_.first_hosts : hosts_now;
  engine.most_hosts = most_hosts;
  engine.home = config_.engine_home;
  for (std::size_t host = 0; host < config_.hosts.size(); ++host)
    if (!config_.hosts[host].empty())
      engine.members |= dsm::mask_of(static_cast<dsm::HostId>(host));
  engine.pages = kWindowPages;
  engine.prefetch = config_.prefetch;
  engine.without = config_.without;
  engine.names = config_.hosts;
  engine.epoch = config_.epoch;
  if (config_.on_peer_lost)
    engine.on_peer_lost = [this](dsm::HostId peer, const char* why) { peer_lost(peer, why); };
  auto made = dsm::Engine::create(engine, *view_, *transport_,
                                  [this](const std::string& cause) { failed_(cause); });
  if (!made) return made.error();
  engine_ = std::move(*made);
  // One that joins first has to hear who manages what.
  if (config_.first_hosts == 0) start_serving();
  return {};
}

// Without the home there is no way to go on.
void Slice::peer_lost(dsm::HostId peer, const char* why) {
  if (peer == home_host()) return engine_->stop("host " + config_.hosts[peer] + " is lost: " + why);
  config_.on_peer_lost(peer, why);
}

void Slice::start_serving() {
  serving_ = true;
  start_service_thread("xs-engine", Priority::kFaults, [this] { engine_->serve(); });
}

Home::Services Slice::home_services() {
  Home::Services services;
  services.self = config_.self;
  services.view = view_.get();
  services.layout = &layout_;
  services.engine = engine_.get();
  services.places = &places_;
  services.hosts = config_.hosts;
  services.memory = config_.memory;
  services.descriptor_limit = config_.descriptor_limit;
  services.directory = config_.directory;
  services.monotonic_offset = monotonic_offset_;
  services.realtime_offset = realtime_offset_;
  services.start_thread = [this](dsm::HostId host, const StartThread& start) {
    return start_thread_on(host, start);
  };
  services.forbid = [this](dsm::HostId host, std::uint64_t version, const Range& range) {
    forbid_on(host, version, range);
  };
  services.take_back_lease = [this](dsm::HostId host, std::uint64_t address,
                                    std::uint64_t version) {
    take_back_lease(host, address, version);
  };
  services.kick = [this](dsm::HostId host, int tid) { kick_on(host, tid); };
  services.take_over = [this](dsm::HostId host, const Packet& state) {
    return take_over_on(host, state);
  };
  services.place = [this](unsigned vcpu, VcpuPlace place) { place_on_all(vcpu, place); };
  services.tell_place = [this](dsm::HostId host, unsigned vcpu, VcpuPlace place) {
    if (host != config_.self) place_on(host, vcpu, place);
  };
  services.call_away = [this](dsm::HostId host, int tid) { call_away_on(host, tid); };
  services.end = ended_;
  return services;
}

void Slice::accept_lines() {
  acceptor_->set_handler(kLinePurpose, [this](std::unique_ptr<dsm::tcp::SecureStream> stream) {
    auto shared = std::make_shared<std::unique_ptr<dsm::tcp::SecureStream>>(std::move(stream));
    start_service_thread("xs-call", Priority::kCalls,
                         [this, shared] { serve_line(std::move(*shared)); });
    return true;
  });
}

Status Slice::start_home() {
  home_ = std::make_unique<Home>(home_services());
  home_pid_ = ::getpid();
  serving_home_ = home_.get();
  accept_lines();
  for (dsm::HostId host = 0; host < config_.hosts.size(); ++host)
    if (host != config_.self && !config_.hosts[host].empty())
      if (Status status = connect_control(host); !status) return status;
  return {};
}

// Only the home controls.
void Slice::accept_control() {
  acceptor_->set_handler(kControlPurpose, [this](std::unique_ptr<dsm::tcp::SecureStream> stream) {
    if (stream->id().from != home_host()) return false;
    auto shared = std::make_shared<std::unique_ptr<dsm::tcp::SecureStream>>(std::move(stream));
    start_service_thread("xs-control", Priority::kCalls,
                         [this, shared] { serve_control(**shared); });
    return true;
  });
}

Status Slice::start_remote() {
  accept_control();
  auto lines = make_ready_lines(home_host());
  if (!lines) return lines.error();
  const auto clocks = measure_clocks(home_host(), *lines->front());
  if (!clocks) return clocks.error();
  follow_home(home_host(), *clocks, std::move(*lines));
  return {};
}

Result<std::vector<std::unique_ptr<Line>>> Slice::make_ready_lines(dsm::HostId home) {
  std::vector<std::unique_ptr<Line>> ready;
  for (std::size_t i = 0; i < kReadyLines; ++i) {
    auto line = make_line(home);
    if (line == nullptr)
      return Error{ECONNREFUSED, "cannot open a line to host " + config_.hosts[home]};
    ready.push_back(std::move(line));
  }
  return ready;
}

void Slice::follow_home(dsm::HostId home, const Clocks& clocks,
                        std::vector<std::unique_ptr<Line>> lines) {
  std::lock_guard guard(lock_);
  home_host_ = home;
  monotonic_offset_ = clocks.monotonic_offset;
  realtime_offset_ = clocks.realtime_offset;
  home_pid_ = clocks.home_pid;
  lines_ = std::move(lines);
  ++role_;
}

// The sample with the shortest round trip tells best (Cristian, 1989). Hosts of one machine share
// their clocks exactly.
Result<Slice::Clocks> Slice::measure_clocks(dsm::HostId home, Line& line) {
  Clocks clocks;
  std::int64_t best = INT64_MAX;
  Packet request, answer;
  const BootId here = boot_id();
  for (int sample = 0; sample < 16; ++sample) {
    const std::int64_t sent = clock_ns(CLOCK_MONOTONIC);
    const std::int64_t realtime_sent = clock_ns(CLOCK_REALTIME);
    if (!line.call(Op::kClock, 0, request, answer))
      return Error{ECONNRESET, "lost host " + config_.hosts[home] + " while its slice was joined"};
    const std::int64_t trip = clock_ns(CLOCK_MONOTONIC) - sent;
    Reader in(answer);
    const auto monotonic = in.get<std::int64_t>();
    const auto realtime = in.get<std::int64_t>();
    clocks.home_pid = in.get<std::int32_t>();
    const auto boot = in.get<BootId>();
    const auto monotonic_offset = in.get<std::int64_t>();
    const auto realtime_offset = in.get<std::int64_t>();
    if (boot == here) {
      clocks.monotonic_offset = monotonic_offset;
      clocks.realtime_offset = realtime_offset;
      break;
    }
    if (trip >= best) continue;
    best = trip;
    clocks.monotonic_offset = monotonic - (sent + trip / 2);
    clocks.realtime_offset = realtime - (realtime_sent + trip / 2);
  }
  return clocks;
}

Status Slice::run(const std::string& program, std::vector<std::string> arguments,
                  std::vector<std::string> environment) {
  std::string path;
  for (const std::string& variable : environment)
    if (variable.starts_with("PATH=")) path = variable.substr(5);
  auto found = find_program(program, path, config_.cwd);
  if (!found) return found.error();
  if (home() == nullptr) return Error{EPROTO, "the program starts at the home"};
  auto start = home_->load(*found, std::move(arguments), std::move(environment));
  if (!start) return start.error();
  start_service_thread("xs-signals", Priority::kHouse, [this] { home_->run_pump(); });
  if (const int error = GuestThread::start(*this, *start); error != 0)
    return system_error(-error, "cannot start the program's first thread");
  return {};
}

void Slice::outside_signal(int signo) {
  if (Home* home = serving_home_.load(); home != nullptr) return home->outside_signal(signo);
  const std::lock_guard guard(signals_lock_);
  late_signals_.push_back(signo);
}

dsm::tcp::ConnectOptions Slice::options_to(dsm::HostId host, std::uint8_t purpose) const {
  dsm::tcp::ConnectOptions options;
  options.address = config_.addresses[host];
  options.port = config_.ports[host];
  options.secret = config_.secret;
  options.self = config_.self;
  options.peer = host;
  options.purpose = purpose;
  options.encrypt = config_.encrypt;
  options.timeout_ms = kConnectLimitMs;
  return options;
}

// Where hosts have been lost, this slice and the home enter the new epoch within moments.
Result<std::unique_ptr<dsm::tcp::SecureStream>> Slice::connect_line(
    dsm::tcp::ConnectOptions& options) {
  constexpr std::int64_t kMoments = 15'000'000'000;
  const std::int64_t end = clock_ns(CLOCK_MONOTONIC) + kMoments;
  for (;;) {
    options.epoch = acceptor_->epoch();
    auto stream = dsm::tcp::connect_stream(options);
    if (stream || stream.error().code != ESTALE || clock_ns(CLOCK_MONOTONIC) > end) return stream;
    const timespec a_little{0, 5'000'000};
    ::nanosleep(&a_little, nullptr);
  }
}

std::unique_ptr<Line> Slice::make_line(dsm::HostId home) {
  dsm::tcp::ConnectOptions options = options_to(home, kLinePurpose);
  auto stream = connect_line(options);
  if (!stream) {
    log::error("{}", stream.error().message);
    return nullptr;
  }
  return std::make_unique<StreamLine>(std::move(*stream));
}

std::unique_ptr<Line> Slice::take_line(int tid) {
  if (Home* const here = home(); here != nullptr) {
    auto thread = here->thread(tid);
    if (thread == nullptr) return nullptr;
    thread->proxy = ::gettid();
    return std::make_unique<LocalLine>(*here, std::move(thread));
  }
  std::unique_ptr<Line> line;
  {
    std::lock_guard guard(lock_);
    if (!lines_.empty()) {
      line = std::move(lines_.back());
      lines_.pop_back();
    }
  }
  if (line == nullptr) line = make_line(home_host());
  if (line == nullptr) return nullptr;
  Packet request, answer;
  Writer(request).put(std::int32_t{tid});
  return line->call(Op::kBind, 0, request, answer) ? std::move(line) : nullptr;
}

void Slice::give_back(std::unique_ptr<Line> line, unsigned role) {
  std::lock_guard guard(lock_);
  // A function call needs no keeping.
  if (role == this->role() && !is_home()) lines_.push_back(std::move(line));
}

void Slice::add(std::unique_ptr<GuestThread> thread) {
  std::lock_guard guard(lock_);
  const int tid = thread->tid();
  threads_.emplace(tid, std::move(thread));
}

void Slice::remove(int tid) {
  std::lock_guard guard(lock_);
  threads_.erase(tid);
}

void Slice::release(int tid) {
  std::lock_guard guard(lock_);
  if (const auto found = threads_.find(tid); found != threads_.end()) {
    [[maybe_unused]] GuestThread* own = found->second.release();
    threads_.erase(found);
  }
}

std::size_t Slice::threads_here() {
  std::lock_guard guard(lock_);
  return threads_.size();
}

bool Slice::learn(std::uint64_t version, std::uint64_t address, const Range& range, int prot) {
  while (learning_.test_and_set(std::memory_order_acquire)) {
  }
  const bool here = is_home();  // the home learnt it under the layout lock
  const bool current = here || version >= forbidden_version_;
  if (current && !here) layout_.learn(address, range, prot);
  learning_.clear(std::memory_order_release);
  return current;
}

// ---- home side of the lines and controls ----

void Slice::serve_line(std::unique_ptr<dsm::tcp::SecureStream> stream) {
  FrameHeader header;
  Packet request, answer;
  std::shared_ptr<HomeThread> thread;
  HomeThread nobody;  // for kClock before a thread is bound
  const dsm::HostId from = stream->id().from;
  while (receive_frame(*stream, header, request) == 0) {
    Home* const home = serving_home_.load();
    if (home == nullptr) break;
    answer.clear();
    if (header.op == Op::kBind) {
      thread = home->thread(Reader(request).get<std::int32_t>());
      // A slice speaks for its own threads only.
      if (thread == nullptr || thread->host != from) break;
      thread->proxy = ::gettid();
    } else if (thread != nullptr || header.op == Op::kClock) {
      HomeThread& caller = thread != nullptr ? *thread : nobody;
      caller.tell(header.signal_mask);
      home->serve(caller, header.op, request, answer);
      if (header.op == Op::kThreadExit) {
        thread->proxy = 0;
        thread.reset();
      } else if (header.op == Op::kMove && Reader(answer).get<std::int64_t>() == 0) {
        thread.reset();  // it speaks by another line now
      }
    } else {
      break;
    }
    if (send_frame(*stream, header, answer) != 0) break;
  }
  // The loss of a host is the engine's to report; a line that breaks the rules is closed with this
  // line of log.
  if (thread != nullptr && serving_home_.load() != nullptr)
    log::warning("the line of thread {} on host {} ended", thread->tid, config_.hosts[from]);
}

bool Slice::control_call(dsm::HostId host, Op op, const Packet& request, Packet& answer) {
  const auto control = controls_[host].load();
  if (control == nullptr) return false;
  std::lock_guard guard(control->lock);
  FrameHeader header;
  header.op = op;
  return control->stream != nullptr && send_frame(*control->stream, header, request) == 0 &&
         receive_frame(*control->stream, header, answer) == 0;
}

int Slice::start_thread_on(dsm::HostId host, const StartThread& start) {
  if (host == config_.self) return GuestThread::start(*this, start);
  Packet request, answer;
  Writer(request).put(start);
  if (!control_call(host, Op::kStartThread, request, answer)) return -EAGAIN;
  return static_cast<int>(Reader(answer).get<std::int64_t>());
}

void Slice::forbid_on(dsm::HostId host, std::uint64_t version, const Range& range) {
  Packet request, answer;
  Writer(request).put(version).put(range.start).put(range.end);
  control_call(host, Op::kForbid, request,
               answer);  // a lost host ends the domain through the engine
}

void Slice::take_back_lease(dsm::HostId host, std::uint64_t address, std::uint64_t version) {
  Packet request, answer;
  Writer(request).put(address).put(version);
  control_call(host, Op::kFutexTakeBack, request, answer);
}

int Slice::take_over_on(dsm::HostId host, const Packet& state) {
  if (host == config_.self)
    return check_thread_state(state) ? GuestThread::take_over(*this, state) : -EINVAL;
  Packet answer;
  if (!control_call(host, Op::kTakeOver, state, answer)) return -EAGAIN;
  Reader in(answer);
  const auto error = in.get<std::int64_t>();
  return in.ok() ? static_cast<int>(error) : -EIO;
}

void Slice::place_on_all(unsigned vcpu, VcpuPlace place) {
  for (dsm::HostId host = 0; host < config_.hosts.size(); ++host)
    if (host != config_.self) place_on(host, vcpu, place);
}

void Slice::place_on(dsm::HostId host, unsigned vcpu, VcpuPlace place) {
  Packet request, answer;
  Writer(request)
      .put(std::uint32_t{vcpu})
      .put(std::uint32_t{place.host})
      .put(std::int32_t{place.core});
  control_call(host, Op::kPlace, request, answer);
}

void Slice::kick_on(dsm::HostId host, int tid) {
  const auto control = controls_[host].load();
  if (control == nullptr) return;
  {
    std::lock_guard guard(control->kick_lock);
    control->kicks.emplace(tid, Op::kKick);
  }
  control->kicker.wake();
}

void Slice::call_away_on(dsm::HostId host, int tid) {
  if (host == config_.self) {
    std::lock_guard guard(lock_);
    if (const auto found = threads_.find(tid); found != threads_.end()) found->second->call_away();
    return;
  }
  const auto control = controls_[host].load();
  if (control == nullptr) return;
  {
    std::lock_guard guard(control->kick_lock);
    control->kicks[tid] = Op::kCallAway;  // which is a kick too
  }
  control->kicker.wake();
}

void Slice::send_kicks(dsm::HostId host, Control& control) {
  Packet request, answer;
  for (;;) {
    control.kicker.prepare();
    std::map<int, Op> kicks;
    {
      std::lock_guard guard(control.kick_lock);
      kicks.swap(control.kicks);
    }
    if (kicks.empty()) control.kicker.sleep(-1);
    if (controls_[host].load().get() != &control) return;  // the host has left
    for (const auto& [tid, op] : kicks) {
      Writer(request).put(std::int32_t{tid});
      if (!control_call(host, op, request, answer)) return;  // the engine reports the loss
    }
  }
}

// ---- remote side of the control line ----

int Slice::vcpu_is_here(std::uint32_t vcpu) const {
  if (vcpu >= places_.size()) return -EINVAL;
  return places_.at(vcpu).host == config_.self ? 0 : -ESTALE;
}

void Slice::serve_control(dsm::tcp::SecureStream& stream) {
  FrameHeader header;
  Packet request, answer;
  while (receive_frame(stream, header, request) == 0) {
    if (stream.id().from != home_host()) break;  // no longer
    Reader in(request);
    Writer out(answer);
    switch (header.op) {
      case Op::kTakeHome: take_home_part(request, answer); break;
      case Op::kStartThread: {
        const auto start = in.get<StartThread>();
        int error = in.ok() ? vcpu_is_here(start.vcpu) : -EINVAL;
        if (error == 0) error = GuestThread::start(*this, start);
        if (error != 0 && error != -ESTALE)
          log::error("cannot start thread {} for vCPU {}: {}", start.clone.tid, start.vcpu,
                     strerrordesc_np(-error));
        out.put(std::int64_t{error});
        break;
      }
      case Op::kTakeOver: {
        int error =
            check_thread_state(request) ? vcpu_is_here(in.get<ThreadState>().vcpu) : -EINVAL;
        if (error == 0) error = GuestThread::take_over(*this, request);
        out.put(std::int64_t{error});
        break;
      }
      case Op::kPlace: {
        const auto vcpu = in.get<std::uint32_t>();
        const auto host = in.get<std::uint32_t>();
        const auto core = in.get<std::int32_t>();
        if (in.ok() && vcpu < places_.size() && host < config_.hosts.size() && core >= 0 &&
            core < CPU_SETSIZE)
          places_.set(vcpu, {static_cast<dsm::HostId>(host), core});
        break;
      }
      case Op::kForbid: {
        const auto version = in.get<std::uint64_t>();
        const Range range{in.get<std::uint64_t>(), in.get<std::uint64_t>()};
        if (!in.ok() || range.start < kWindowStart || range.end > kWindowEnd ||
            range.start >= range.end)
          break;
        while (learning_.test_and_set(std::memory_order_acquire)) {
        }
        forbidden_version_ = version;
        layout_.forget(range);
        learning_.clear(std::memory_order_release);
        engine_->unmap(gfn_of(range.start), range.bytes() >> dsm::kPageShift);
        break;
      }
      case Op::kFutexTakeBack: {
        const auto address = in.get<std::uint64_t>();
        const auto version = in.get<std::uint64_t>();
        if (in.ok()) idle_futexes_.take_back(address, version);
        break;
      }
      case Op::kKick:
      case Op::kCallAway: {
        const auto tid = in.get<std::int32_t>();
        std::lock_guard guard(lock_);
        const auto found = threads_.find(tid);
        if (found == threads_.end()) break;
        if (header.op == Op::kKick)
          found->second->kick();
        else
          found->second->call_away();
        break;
      }
      default: break;
    }
    if (send_frame(stream, header, answer) != 0) break;
  }
}

}  // namespace xenspan::hypervisor::usermode
