// Hosts come and go while the engine runs: what a slice asks of its engine for that. PROTOCOL.md,
// "Hosts come and go", says what goes over the wire, and why it is safe.
//
// The calls are steps of a plan that one host makes for the domain (the home's daemon): each names
// what has to be over on which host before. Three plans:
//
//   J joins        every member: tcp::add_peer() and add_peer(J), while J makes its own connections
//                  (tcp::connect_mesh with MeshConfig::hosts of all members);
//                  J: learn_slots(slots() of any member); once all these are over,
//                  J: serve(), take_slots(everybody with J). vCPUs may run there from now on.
//   L leaves       L: its vCPUs are gone, nobody calls acquire*() or discard() there any more;
//                  L: drain(the others), then slots() of L goes to every other member:
//                  member: learn_slots(of L), settle(); once that is over on all of them,
//                  member: remove_peer(L); L: stop() at last.
//   home leaves    H: its vCPUs are gone, nobody calls acquire*() or discard() there any more;
//                  H: drain(the others), then every other member: forget_home(); once that is over
//                  on all of them, each of them: settle(); once that is over on all of them,
//                  H: forget_home(), and it leaves as any other host. It goes on with the pages
//                  that nobody has touched until it is forgotten, and a reader of one may have made
//                  it a holder of that page: so it drains twice.
//   shares change  any host: take_slots(live).
//
// A host that fails in between is lost as at any other time (Engine's on_stop). A plan that is
// given up half way leaves nothing wrong: shares are uneven, a host holds less than it could.
// Who joins after the home has left is told by EngineConfig::home. Without a home no host's death can
// be survived (survival.h): which pages nobody has touched is known to their managers only.
//
// Threading: any thread but the service thread, which has to be in serve(); take_slots(), drain()
// and settle() block until they are done, or the engine has stopped (ECANCELED); EINVAL when what
// is asked for makes no sense (nothing has changed then). One of these calls at a time on a host;
// other hosts may be in theirs. Faults go on during all of them.
#pragma once

#include <string>

#include "base/result.h"
#include "dsm-rdma/slot_table.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class Membership {
 public:
  // Who manages what, as known here. Others may know newer or older moves: each slot has a count of
  // its moves, and learn_slots() keeps the newer of two.
  virtual SlotTable slots() const = 0;
  virtual void learn_slots(const SlotTable& table) noexcept = 0;

  // The hosts of the domain, this one included.
  virtual HostMask members() const noexcept = 0;
  // A host has joined, and the transport reaches it. Its number is below EngineConfig::most_hosts,
  // and nobody's now. Before the new host asks anybody for anything, on all members.
  virtual Status add_peer(HostId host, const std::string& name) = 0;

  // Takes this host's share of the slots from their managers, as SlotTable::rebalance(live) deals
  // them out. Each slot changes hands by itself: requests for its pages wait for about a round trip
  // at most, whoever makes them. Two hosts may take at the same time.
  virtual Status take_slots(HostMask live) = 0;

  // This host gives away all it has: the pages of which it has the last copy to hosts in `heirs`
  // (not empty, without this host), its read copies to nobody, its slots to `heirs` in equal
  // shares. Afterwards it holds nothing and manages nothing; it still passes on what comes to it by
  // an old table, until it is stopped. A peer that goes is no loss to it any more.
  virtual Status drain(HostMask heirs) = 0;

  // The home leaves. At another host: from now on it gives the pages that nobody has touched away
  // itself where it manages them. At the home: it has no right to them any more.
  virtual void forget_home() noexcept = 0;

  // Until every request that was under way here at the time of the call is over, and every slot has
  // come that was on its way here.
  virtual Status settle() = 0;
  // The host has drained, and every other member has learned its table and settled since: forgets
  // it and closes the connections in order. EBUSY when, as far
  // as is known here, it still manages something.
  virtual Status remove_peer(HostId host) = 0;

 protected:
  ~Membership() = default;
};

}  // namespace xenspan::dsm
