// The home's role moves from one slice to another while the domain runs. The plan is the daemon's
// (dom0-daemon/slice/control.md has the orders); home_role.cc has what is handed over.
//
// Every slice closes its gate, so that no guest thread begins a call at the home, and calls that
// are under way are interrupted to be made again. When there is none any more, nothing of the
// domain depends on which slice is the home but what the home keeps: that goes over the control
// line, and every slice is told. A thread finds out with its next call, and connects anew.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/home_state.h"
#include "dom0-daemon/hypervisor/usermode/service_threads.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::size_t kPartBytes = 256 << 10;
constexpr std::size_t kMostNames = 8;
// For a thread that has come to the closed gate and counts for a moment.
constexpr std::chrono::milliseconds kGateLimit{500};

std::string joined(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
  return all;
}

}  // namespace

Slice::Held Slice::hold(std::chrono::milliseconds limit) {
  gate_.hold();
  if (Home* const here = home(); here != nullptr) here->hold();
  Held held;
  held.calls = gate_.await_calls(limit);
  if (held.calls == 0) return held;
  std::lock_guard guard(lock_);
  for (const auto& [tid, thread] : threads_)
    if (const char* what = thread->asking(); what != nullptr && held.names.size() < kMostNames)
      held.names.push_back("thread " + std::to_string(tid) + ": " + what);
  return held;
}

void Slice::release() {
  if (Home* const here = home(); here != nullptr) here->release();
  gate_.release();
}

// ---- the old home

Status Slice::may_give_home(dsm::HostId to) {
  Home* const here = home();
  if (here == nullptr) return Error{EPROTO, "this slice is not the home"};
  if (to >= dsm::kMaxHosts || to == config_.self || controls_[to].load() == nullptr)
    return Error{EINVAL, "host number " + std::to_string(to) + " cannot become the home"};
  if (here->threads().empty()) return Error{EBUSY, "the program has not been started"};
  for (unsigned vcpu = 0; vcpu < places_.size(); ++vcpu)
    if (places_.at(vcpu).host == config_.self)
      return Error{EBUSY, "vCPU " + std::to_string(vcpu) + " is placed on the home"};
  if (const unsigned left = here->threads_on(config_.self); left != 0)
    return Error{EBUSY, std::to_string(left) + " threads are still on the home"};
  if (!gate_.held()) return Error{EBUSY, "calls at the home are not held"};
  if (const unsigned calls = gate_.await_calls(kGateLimit) + here->calls_under_way(); calls != 0)
    return Error{EBUSY, std::to_string(calls) + " calls at the home are under way"};
  const OpenFiles open = look_at_open_files(config_.descriptor_limit);
  if (!open.bound.empty())
    return Error{EBUSY, "the program has open what is bound to host " +
                            config_.hosts[config_.self] + ": " + joined(open.bound)};
  return {};
}

Status Slice::send_home(dsm::HostId to, const Packet& state) {
  const std::string name = "host " + config_.hosts[to];
  if (state.size() > kMaxHomeState)
    return Error{EMSGSIZE, "the home's state takes " + std::to_string(state.size()) +
                               " bytes, the limit is " + std::to_string(kMaxHomeState)};
  Packet request, answer;
  for (std::size_t offset = 0; offset < state.size(); offset += kPartBytes) {
    Writer(request)
        .put(std::uint64_t{state.size()})
        .put(std::uint64_t{offset})
        .bytes(state.data() + offset, std::min(kPartBytes, state.size() - offset));
    if (!control_call(to, Op::kTakeHome, request, answer))
      return Error{ECONNRESET, name + " did not answer when it was given the home"};
    Reader in(answer);
    const auto code = in.get<std::int32_t>();
    if (!in.ok()) return Error{EPROTO, name + " does not know what a home is"};
    if (code != 0) return Error{code, name + " cannot become the home: " + in.rest()};
  }
  return {};
}

Result<std::vector<int>> Slice::give_home(dsm::HostId to) {
  if (Status may = may_give_home(to); !may) return may.error();
  Home* const here = home();
  here->begin_giving();
  if (Status sent = send_home(to, pack(here->state())); !sent) {
    here->keep();
    return sent.error();
  }
  serving_home_ = nullptr;
  acceptor_->set_handler(kLinePurpose,
                         [](std::unique_ptr<dsm::tcp::SecureStream>) { return false; });
  std::vector<int> signals = here->retire();
  // The program's files are open elsewhere now.
  ::close_range(0, static_cast<unsigned>(config_.descriptor_limit) - 1, 0);
  [[maybe_unused]] const int ignored = ::chdir("/");
  return signals;
}

// ---- the next home

void Slice::take_home_part(const Packet& request, Packet& answer) {
  Reader in(request);
  Writer out(answer);
  const auto bytes = in.get<std::uint64_t>(), offset = in.get<std::uint64_t>();
  const auto refuse = [&](int code, const std::string& why) {
    coming_home_ = Packet();
    out.put(std::int32_t{code}).bytes(why.data(), why.size());
  };
  if (!config_.heir || serving_home_.load() != nullptr)
    return refuse(EPERM, "it did not join for that");
  if (offset == 0) coming_home_.clear();
  const std::size_t part = in.ok() ? request.size() - 2 * sizeof(std::uint64_t) : 0;
  if (part == 0 || bytes > kMaxHomeState || offset != coming_home_.size() ||
      part > bytes - coming_home_.size())
    return refuse(EBADMSG, "the home's state is malformed: its parts");
  const std::uint8_t* from = in.skip(part);
  coming_home_.insert(coming_home_.end(), from, from + part);
  if (coming_home_.size() == bytes) {
    if (const Status taken = take_home(coming_home_); !taken)
      return refuse(taken.error().code != 0 ? taken.error().code : EIO, taken.error().message);
    coming_home_ = Packet();
  }
  out.put(std::int32_t{0});
}

// First all that can be refused: the guest's numbers are occupied until every file is open.
Status Slice::take_home(const Packet& packet) {
  const auto state =
      parse_home_state(packet, places_.size(), config_.descriptor_limit, config_.memory);
  if (!state) return state.error();
  std::vector<UniqueFd> files;
  for (const OpenFile& file : state->files) {
    files.emplace_back();
    if (file.same_as >= 0) continue;
    auto opened = open_again(file);
    if (!opened) return opened.error();
    files.back() = std::move(*opened);
  }
  if (::chdir(state->cwd.c_str()) != 0) return system_error(errno, "cannot enter " + state->cwd);
  auto taken = std::make_unique<Home>(home_services());
  if (Status status = taken->take(*state); !status) {
    [[maybe_unused]] const int ignored = ::chdir("/");
    return status;
  }
  ::umask(state->umask);
  if (Status placed = place_open_files(state->files, files, config_.descriptor_limit); !placed) {
    failed_("the program's files were lost on the way to another home: " + placed.error().message);
    return placed;
  }
  home_ = std::move(taken);
  home_pid_ = state->pid;
  idle_futexes_.take_back_all(state->leases.version);
  serving_home_ = home_.get();
  accept_lines();
  return {};
}

Status Slice::become_home() {
  if (serving_home_.load() == nullptr)
    return Error{EINVAL, "the home's state has not come to host " + config_.hosts[config_.self]};
  const dsm::HostMask others =
      engine_->members() & static_cast<dsm::HostMask>(~dsm::mask_of(config_.self));
  for (dsm::HostId host = 0; host < dsm::kMaxHosts; ++host) {
    if ((others & dsm::mask_of(host)) == 0) continue;
    Status connected = connect_control(host);
    if (connected) continue;
    for (dsm::HostId each = 0; each < host; ++each) close_control(each);
    return connected;
  }
  // What threads here still learn of the old home's answers is no news.
  while (learning_.test_and_set(std::memory_order_acquire)) {
  }
  {
    std::lock_guard guard(lock_);
    home_host_ = config_.self;
    lines_.clear();
    ++role_;
  }
  learning_.clear(std::memory_order_release);
  for (dsm::HostId host = 0; host < dsm::kMaxHosts; ++host)
    if ((others & dsm::mask_of(host)) != 0) home_->tell_places(host, config_.hosts[host]);
  start_service_thread("xs-signals", Priority::kHouse, [this] { home_->run_pump(); });
  return {};
}

// ---- all others

Status Slice::follow(dsm::HostId host) {
  auto lines = make_ready_lines(host);
  if (!lines) return lines.error();
  const auto clocks = measure_clocks(host, *lines->front());
  if (!clocks) return clocks.error();
  const bool was_home = is_home();
  follow_home(host, *clocks, std::move(*lines));
  if (was_home) stop_being_home();
  return {};
}

// Whatever this slice knew of the layout as the home, nobody tells it when that changes.
void Slice::stop_being_home() {
  for (dsm::HostId host = 0; host < dsm::kMaxHosts; ++host) close_control(host);
  layout_.forget({kWindowStart, kWindowEnd});
  engine_->unmap(0, kWindowPages);
  accept_control();
}

Result<std::vector<int>> Slice::set_home(dsm::HostId host) {
  if (host >= dsm::kMaxHosts || (engine_->members() & dsm::mask_of(host)) == 0)
    return Error{EINVAL, "host number " + std::to_string(host) + " is nobody's"};
  const std::string name = "host " + config_.hosts[host];
  if (host == home_host()) return Error{EALREADY, name + " is the home"};
  if (home() != nullptr) return Error{EBUSY, "this slice is the home and has not given it away"};
  if (!gate_.held() || gate_.await_calls(kGateLimit) != 0)
    return Error{EBUSY, "calls at the home are not held"};
  if (Status done = host == config_.self ? become_home() : follow(host); !done) return done.error();
  const std::lock_guard guard(signals_lock_);
  return std::exchange(late_signals_, {});
}

void Slice::forget_engine_home() {
  engine_home_ = dsm::kNoHost;
  engine_->forget_home();
}

}  // namespace xenspan::hypervisor::usermode
