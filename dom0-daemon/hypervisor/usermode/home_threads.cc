// Threads of the domain: where a new one goes, what happens when one ends.
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/home.h"

namespace xenspan::hypervisor::usermode {

// Of those allowed (none named: all) the vCPU with the fewest threads; of equals the first, so that
// neighbours in creation order are neighbours in placement. lock_ is held.
unsigned Home::choose_vcpu(const CpuMask& allowed) {
  std::vector<unsigned> load(services_.places->size(), 0);
  for (const auto& [tid, thread] : threads_) ++load[thread->vcpu];
  const bool any = std::all_of(allowed.begin(), allowed.end(), [](auto word) { return word == 0; });
  unsigned best = 0;
  bool found = false;
  for (unsigned vcpu = 0; vcpu < load.size(); ++vcpu) {
    if (!any && (allowed[vcpu / 64] >> (vcpu % 64) & 1) == 0) continue;
    if (!found || load[vcpu] < load[best]) best = vcpu;
    found = true;
  }
  return best;
}

std::int64_t Home::clone(HomeThread& parent, const CloneRequest& request) {
  StartThread start{};
  start.clone = request;
  auto child = std::make_shared<HomeThread>();
  dsm::HostId host = 0;
  {
    std::lock_guard guard(lock_);
    child->tid = request.tid;
    if (request.tid <= main_tid_ || request.tid >= next_tid_ || threads_.contains(request.tid))
      return -EINVAL;
    child->mask = request.signal_mask;
    child->affinity = parent.affinity;
    child->vcpu = child->told_vcpu = start.vcpu = choose_vcpu(parent.affinity);
    const VcpuPlace place = services_.places->at(start.vcpu);
    child->host = host = place.host;
    child->core = place.core;
    threads_.emplace(request.tid, child);
  }
  int error = 0;
  // The vCPU may be on its way to another host: that slice knows already, this one in a moment.
  for (int tries = 0; (error = services_.start_thread(host, start)) == -ESTALE && tries < 1000;
       ++tries) {
    ::usleep(1000);
    std::lock_guard guard(lock_);
    const VcpuPlace place = services_.places->at(start.vcpu);
    child->host = host = place.host;
    child->core = place.core;
  }
  if (error == 0) return request.tid;
  std::lock_guard guard(lock_);
  threads_.erase(request.tid);
  return error == -ESTALE ? -EAGAIN : error;
}

void Home::thread_exit(HomeThread& thread) {
  bool last = false;
  {
    std::lock_guard guard(lock_);
    const int tid = thread.tid;
    threads_.erase(tid);
    last = threads_.empty();
  }
  settling_.notify_all();
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
      out.put(std::int64_t{-ESRCH}).put(mask).put(std::uint8_t{0});
      return;
    }
    target = found->second.get();
  }
  CpuMask all{};
  for (unsigned vcpu = 0; vcpu < services_.places->size() && vcpu < 1024; ++vcpu)
    all[vcpu / 64] |= std::uint64_t{1} << (vcpu % 64);
  if (set != 0) {
    std::uint64_t any = 0;
    for (std::size_t word = 0; word < mask.size(); ++word) any |= mask[word] &= all[word];
    if (any == 0) {
      out.put(std::int64_t{-EINVAL}).put(mask).put(std::uint8_t{0});
      return;
    }
    target->affinity = mask;
    const unsigned vcpu = target->vcpu;
    if ((mask[vcpu / 64] >> (vcpu % 64) & 1) == 0) target->vcpu = choose_vcpu(mask);
    if (target != &caller && !settled(*target)) pump_.wake();
  }
  std::uint64_t any = 0;
  for (const std::uint64_t word : target->affinity) any |= word;
  out.put(std::int64_t{0})
      .put(any != 0 ? target->affinity : all)
      .put(static_cast<std::uint8_t>(target == &caller && !settled(caller)));
}

}  // namespace xenspan::hypervisor::usermode
