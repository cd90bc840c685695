// Programs come into the domain: the first one, and those that it turns itself into by execve(2).
#include <fcntl.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "dom0-daemon/hypervisor/usermode/clock.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/io/paths.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::int64_t kLeaveLimit = 500'000'000;  // ns for threads that are about to end

std::vector<std::string> take_strings(Reader& in) {
  std::vector<std::string> all;
  for (auto count = in.get<std::uint32_t>(); count > 0 && in.ok(); --count)
    all.push_back(in.text(in.get<std::uint32_t>()));
  return all;
}

void close_on_exec(int limit) {
  for (int descriptor = 0; descriptor < limit; ++descriptor) {
    const int flags = ::fcntl(descriptor, F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC) != 0) ::close(descriptor);
  }
}

}  // namespace

Result<StartThread> Home::load(const std::string& program, std::vector<std::string> arguments,
                               std::vector<std::string> environment) {
  Program wanted;
  wanted.path = program;
  wanted.arguments = std::move(arguments);
  wanted.environment = std::move(environment);
  std::lock_guard guard(layout_lock_);
  auto start = load_image(std::move(wanted));
  if (!start) return start;
  auto main_thread = std::make_shared<HomeThread>();
  main_thread->tid = main_tid_;
  main_thread->host = services_.places->at(0).host;
  main_thread->core = services_.places->at(0).core;
  threads_.emplace(main_tid_, std::move(main_thread));
  return start;
}

// Into an empty layout and memory that reads as zero. layout_lock_ is held.
Result<StartThread> Home::load_image(Program wanted) {
  wanted.uid = ::getuid();
  wanted.gid = ::getgid();
  wanted.hwcap = ::getauxval(AT_HWCAP);
  wanted.hwcap2 = ::getauxval(AT_HWCAP2);
  auto followed = follow_scripts(std::move(wanted));
  if (!followed) return followed.error();
  program_ = std::move(*followed);
  const auto write = [this](std::uint64_t address, const void* from, std::size_t bytes) {
    // The engine has to know which frames were touched, so that a later munmap empties them.
    const dsm::Gfn first = gfn_of(address);
    services_.engine->acquire_range(first, gfn_of(address + bytes - 1) - first + 1,
                                    dsm::Right::kExclusive);
    std::memcpy(services_.view->frames() + (address - kWindowStart), from, bytes);
  };
  auto entry = usermode::load(program_, space_, write);
  if (!entry) return entry.error();
  space_.set_brk_start(entry->brk_start);
  auxv_ = entry->auxv;
  make_files();

  StartThread start{};
  start.clone.tid = main_tid_;
  start.clone.registers.rip = entry->pc;
  start.clone.registers.rsp = entry->sp;
  start.clone.registers.mxcsr = 0x1f80;  // what the kernel gives a new program
  start.clone.registers.fcw = 0x37f;
  return start;
}

// What the domain answers instead of this host's /proc and /sys. layout_lock_ is held.
void Home::make_files() {
  ProcFiles::Sources sources;
  sources.vcpus = services_.places->size();
  sources.memory = services_.memory;
  sources.program = program_.path;
  sources.arguments = program_.arguments;
  sources.environment = program_.environment;
  sources.auxv = auxv_;
  sources.pid = main_tid_;
  sources.directory = services_.directory;
  sources.maps = [this] {
    std::lock_guard layout(layout_lock_);
    return space_.maps();
  };
  sources.threads = [this] {
    std::vector<int> tids;
    for (const auto& thread : threads()) tids.push_back(thread.tid);
    return tids;
  };
  files_ = std::make_unique<ProcFiles>(std::move(sources));
}

// Everything that can be wrong is found out before the old program is given up.
Result<Program> Home::check_exec(Reader& in) {
  Program wanted;
  wanted.path = wanted.given = in.text(in.get<std::uint32_t>());
  wanted.arguments = take_strings(in);
  wanted.environment = take_strings(in);
  if (!in.ok()) return Error{EINVAL, "malformed"};
  if (wanted.path.empty()) return Error{ENOENT, "no path"};
  if (wanted.path[0] != '/') {
    const std::unique_ptr<char, decltype(&std::free)> cwd(::getcwd(nullptr, 0), &std::free);
    if (cwd == nullptr) return Error{errno, "no working directory"};
    wanted.path = std::string(cwd.get()) + "/" + wanted.path;
  }
  // /proc/self/exe is the guest's program, not the runtime.
  if (const auto answer = files_->resolve(io::normalised(wanted.path))) {
    if (answer->kind == ProcFiles::Answer::kContents) return Error{EACCES, "no program"};
    wanted.path = answer->text;
  }
  auto found = find_program(wanted.path, "", "/");
  if (!found) return found.error();
  AddressSpace trial(services_.memory);
  const auto nowhere = [](std::uint64_t, const void*, std::size_t) {};
  if (const auto entry = usermode::load(wanted, trial, nowhere); !entry) return entry.error();
  return wanted;
}

// Only the main thread is left. A thread that was joined may still be on its way to tell the home
// that it has ended, so this waits a little.
bool Home::alone(const HomeThread& caller) {
  if (caller.tid != main_tid_) return false;
  const std::int64_t deadline = clock_ns(CLOCK_MONOTONIC) + kLeaveLimit;
  for (;;) {
    {
      std::lock_guard guard(lock_);
      if (threads_.size() == 1) return true;
    }
    if (clock_ns(CLOCK_MONOTONIC) > deadline) return false;
    ::usleep(1000);
  }
}

void Home::exec(HomeThread& caller, Reader& in, Writer& out) {
  if (!alone(caller)) {
    out.put(std::int64_t{-ENOSYS}).put(StartThread{});
    return;
  }
  auto wanted = check_exec(in);
  if (!wanted) {
    out.put(static_cast<std::int64_t>(-wanted.error().code)).put(StartThread{});
    return;
  }
  close_on_exec(services_.descriptor_limit);
  std::lock_guard layout(layout_lock_);
  std::int64_t emptied = carry_out(space_.munmap(kWindowStart, kWindowEnd - kWindowStart));
  backings_.clear();
  space_ = AddressSpace(services_.memory);
  auto start = emptied == 0 ? load_image(std::move(*wanted)) : Error{EIO, "memory is lost"};
  if (!start) {
    // As execve(2) when it fails too late to go back.
    end_by_signal({128 + SIGKILL, SIGKILL, start.error().message});
    return;
  }
  std::lock_guard guard(lock_);
  for (GuestAction& action : actions_)
    action = GuestAction{action.handler == 1 ? std::uint64_t{1} : 0, 0, 0, 0};
  out.put(std::int64_t{0}).put(*start);
}

}  // namespace xenspan::hypervisor::usermode
