// Threads of the domain: where a new one goes, what happens when one ends.
#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/home.h"

namespace xenspan::hypervisor::usermode {

// The vCPU with the fewest threads; of equals the one after the last chosen, so that neighbours in
// creation order are neighbours in placement. lock_ is held.
unsigned Home::choose_vcpu() {
  std::vector<unsigned> load(services_.vcpus.size(), 0);
  for (const auto& [tid, thread] : threads_) ++load[thread->vcpu];
  unsigned best = 0;
  for (unsigned vcpu = 1; vcpu < load.size(); ++vcpu)
    if (load[vcpu] < load[best]) best = vcpu;
  return best;
}

std::int64_t Home::clone(HomeThread& parent, const CloneRequest& request) {
  StartThread start{};
  start.clone = request;
  {
    std::lock_guard guard(lock_);
    auto child = std::make_shared<HomeThread>();
    child->tid = request.tid;
    if (request.tid <= main_tid_ || request.tid >= next_tid_ || threads_.contains(request.tid))
      return -EINVAL;
    start.vcpu = child->vcpu = choose_vcpu();
    child->host = services_.vcpus[child->vcpu].host;
    child->mask = request.signal_mask;
    child->affinity = parent.affinity;
    threads_.emplace(request.tid, std::move(child));
  }
  const int error = services_.start_thread(services_.vcpus[start.vcpu].host, start);
  if (error == 0) return request.tid;
  std::lock_guard guard(lock_);
  threads_.erase(request.tid);
  return error;
}

void Home::thread_exit(HomeThread& thread) {
  bool last = false;
  {
    std::lock_guard guard(lock_);
    const int tid = thread.tid;
    threads_.erase(tid);
    last = threads_.empty();
  }
  if (last)
    finish({});  // the last thread left by exit(2), not exit_group(2): the process's status is 0
}

void Home::affinity(HomeThread& caller, Reader& in, Writer& out) {
  const auto tid = in.get<std::int32_t>();
  const auto set = in.get<std::uint8_t>();
  auto mask = in.get<std::array<std::uint64_t, 16>>();
  std::lock_guard guard(lock_);
  HomeThread* target = &caller;
  if (tid != 0 && tid != caller.tid) {
    const auto found = threads_.find(tid);
    if (found == threads_.end()) {
      out.put(std::int64_t{-ESRCH}).put(mask);
      return;
    }
    target = found->second.get();
  }
  std::array<std::uint64_t, 16> all{};
  for (unsigned vcpu = 0; vcpu < services_.vcpus.size() && vcpu < 1024; ++vcpu)
    all[vcpu / 64] |= std::uint64_t{1} << (vcpu % 64);
  if (set != 0) {
    std::uint64_t any = 0;
    for (std::size_t word = 0; word < mask.size(); ++word) any |= mask[word] &= all[word];
    if (any == 0) {
      out.put(std::int64_t{-EINVAL}).put(mask);
      return;
    }
    target->affinity = mask;
  }
  std::uint64_t any = 0;
  for (const std::uint64_t word : target->affinity) any |= word;
  out.put(std::int64_t{0}).put(any != 0 ? target->affinity : all);
}

}  // namespace xenspan::hypervisor::usermode
