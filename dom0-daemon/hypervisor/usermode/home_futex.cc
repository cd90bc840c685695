// futex(2) at the home. The word itself is looked at by the caller, on its own host: see
// futex_table.h.
#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/home.h"

namespace xenspan::hypervisor::usermode {
namespace {

FutexTicket ticket_of(HomeThread& thread) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(thread.tid)) << 32) |
         ++thread.futex_count;
}

int tid_of(FutexTicket ticket) { return static_cast<int>(ticket >> 32); }

}  // namespace

void Home::futex_enqueue(HomeThread& thread, Reader& in, Writer& out) {
  const auto address = in.get<std::uint64_t>();
  const auto bitset = in.get<std::uint32_t>();
  const FutexTicket ticket = ticket_of(thread);
  thread.parker.prepare();
  FutexLeases::TakeBack leases;
  {
    std::lock_guard guard(lock_);
    futexes_.enqueue(address, bitset, ticket);
    leases = futex_leases_.on_wait(address);
  }
  take_back_leases(address, leases);
  out.put(ticket);
}

// Before whoever waits there is told that it is queued.
void Home::take_back_leases(std::uint64_t address, const FutexLeases::TakeBack& what) {
  for (dsm::HostId host = 0; host < services_.hosts.size(); ++host)
    if (host != services_.self && (what.hosts & dsm::mask_of(host)) != 0)
      services_.take_back_lease(host, address, what.version);
}

void Home::futex_cancel(Reader& in, Writer& out) {
  const auto ticket = in.get<FutexTicket>();
  std::lock_guard guard(lock_);
  out.put(static_cast<std::uint8_t>(futexes_.cancel(ticket)));
}

void Home::futex_sleep(HomeThread& thread, Reader& in, Writer& out) {
  const auto ticket = in.get<FutexTicket>();
  const auto timeout = in.get<std::int64_t>();
  std::int64_t result =
      in.ok() && tid_of(ticket) == thread.tid ? thread.parker.sleep(timeout) : -EINVAL;
  if (result != 0) {
    std::lock_guard guard(lock_);
    if (!futexes_.cancel(ticket))
      result = 0;  // woken at the last moment: the waker has counted this thread
  }
  out.put(result);
}

void Home::wake_tickets(const std::vector<FutexTicket>& tickets) {
  for (const FutexTicket ticket : tickets)
    if (const auto found = threads_.find(tid_of(ticket)); found != threads_.end())
      found->second->parker.wake();
}

void Home::futex_wake(const HomeThread& caller, Reader& in, Writer& out) {
  const auto address = in.get<std::uint64_t>();
  const auto count = in.get<std::uint32_t>();
  const auto bitset = in.get<std::uint32_t>();
  std::lock_guard guard(lock_);
  const auto tickets = futexes_.wake(address, count, bitset);
  wake_tickets(tickets);
  const bool idle =
      tickets.empty() && caller.host != services_.self && !futexes_.anyone_at(address);
  out.put(static_cast<std::int64_t>(tickets.size()))
      .put(idle ? futex_leases_.on_idle_wake(address, caller.host) : std::uint64_t{0});
}

void Home::futex_requeue(Reader& in, Writer& out) {
  const auto from = in.get<std::uint64_t>();
  const auto to = in.get<std::uint64_t>();
  const auto wake_count = in.get<std::uint32_t>();
  const auto move_count = in.get<std::uint32_t>();
  unsigned moved = 0;
  std::vector<FutexTicket> tickets;
  FutexLeases::TakeBack leases;
  {
    std::lock_guard guard(lock_);
    tickets = futexes_.requeue(from, to, wake_count, move_count, &moved);
    wake_tickets(tickets);
    if (moved > 0) leases = futex_leases_.on_wait(to);
  }
  take_back_leases(to, leases);
  out.put(static_cast<std::int64_t>(tickets.size())).put(static_cast<std::int64_t>(moved));
}

}  // namespace xenspan::hypervisor::usermode
