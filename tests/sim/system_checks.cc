// What must hold in every state (check_page) and when a page is quiet (check_directory), and states
// in words.
#include <cstdio>

#include "tests/sim/system.h"

namespace xenspan::dsm::sim {
namespace {

const char* word(ivy::Kind kind) {
  switch (kind) {
    case ivy::Kind::kReadRequest: return "read-request";
    case ivy::Kind::kWriteRequest: return "write-request";
    case ivy::Kind::kReadForward: return "read-forward";
    case ivy::Kind::kWriteForward: return "write-forward";
    case ivy::Kind::kInvalidate: return "invalidate";
    case ivy::Kind::kGrant: return "grant";
    case ivy::Kind::kInvalidateAck: return "invalidate-ack";
    case ivy::Kind::kRelease: return "release";
    case ivy::Kind::kReleased: return "released";
    case ivy::Kind::kOffer: return "offer";
    case ivy::Kind::kRow: return "row";
    case ivy::Kind::kSlotOffer: return "slot-offer";
    case ivy::Kind::kSlotAsk: return "slot-ask";
    case ivy::Kind::kSlotRows: return "slot-rows";
    case ivy::Kind::kSlotMoved: return "slot-moved";
  }
  return "?";
}

const char* word(ivy::Step::Kind kind) {
  switch (kind) {
    case ivy::Step::Kind::kWithdraw: return "withdraw";
    case ivy::Step::Kind::kProtect: return "protect";
    case ivy::Step::Kind::kDropFrame: return "drop frame";
    case ivy::Step::Kind::kGrantShared: return "map read-only";
    case ivy::Step::Kind::kGrantExclusive: return "map read-write";
    case ivy::Step::Kind::kSend: return "send";
    case ivy::Step::Kind::kComplete: return "complete";
  }
  return "?";
}

const char* word(Op op) {
  return op == Op::kRead ? "read" : op == Op::kWrite ? "write" : "discard";
}

template <typename... Args>
std::string text(const char* format, Args... args) {
  char buffer[200];
  std::snprintf(buffer, sizeof buffer, format, args...);
  return buffer;
}

std::string text(const ivy::Message& m) {
  std::string line = text("%s %d->%d for host %d", word(m.kind), m.from, m.to, m.requester);
  line += text(" page %d txn %u", static_cast<int>(m.gfn), m.txn);
  if (m.kind == ivy::Kind::kGrant) {
    line += m.payload == ivy::Payload::kNone   ? " no contents"
            : m.payload == ivy::Payload::kPage ? " with page"
                                               : " zero";
  }
  if (m.acks != 0) line += text(" acks %d", m.acks);
  line += text(" version %d", m.version);
  if (m.reads != 0) line += text(" reads %d", m.reads);
  if (m.moves != 0) line += text(" moves %d", m.moves);
  return line;
}

struct Facts {
  bool directory_set;
  unsigned owner, version, held_version, reads_sent, reads_served, pending;
};
Facts facts_of(const SimPage& page, bool wide) {
  return page.with(wide, [](const auto& s) {
    return Facts{s.directory_set != 0, s.owner,        s.version, s.held_version,
                 s.reads_sent,         s.reads_served, s.pending};
  });
}

}  // namespace

void System::check_page(unsigned page) {
  unsigned writers = 0, readers = 0;
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    const Place& place = places_[host][page];
    if (place.mapped == Right::kInvalid || host == dead_) continue;
    (place.mapped == Right::kExclusive ? writers : readers) += 1;
    if (place.frame != current_[page])
      fail("I2: a guest can read a value that is not the last written");
  }
  if (writers > 1) fail("I1: two guests can write the page");
  if (writers == 1 && readers != 0) fail("I1: one guest can write the page while another reads it");
}

void System::check_directory(unsigned page) {
  const unsigned manager = manager_of(page);
  const Facts directory = facts_of(places_[manager][page].state, shape_.wide);
  if (!directory.directory_set && shape_.elastic && homeless(manager)) {
    for (unsigned host = 0; host < shape_.hosts; ++host) {
      if (places_[host][page].mapped != Right::kInvalid) fail("a page that nobody holds is mapped");
    }
    if (current_[page] != 0) fail("a page that was written is taken for one that nobody touched");
    return;
  }
  const auto entered = [&](unsigned host) {
    return directory.directory_set ? lists(manager, page, host) : host == shape_.home;
  };
  const unsigned owner = directory.directory_set ? directory.owner : shape_.home;
  if (!entered(owner)) fail("the owner is not in the copyset");
  unsigned holders = 0;
  for (unsigned host = 0; host < shape_.hosts; ++host) holders += entered(host);
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    const Place& place = places_[host][page];
    const Facts facts = facts_of(place.state, shape_.wide);
    // A home that has drained does not use what it takes for its own until it hears that it leaves.
    if (home_leaves() && members_.homeless != 0 && host == shape_.home && untouched(host, page))
      continue;
    const Right right = right_at(host, page);
    if (facts.pending != 0) fail("a request is pending, but nothing is under way");
    if (entered(host) != (right != Right::kInvalid)) fail("the copyset is not who holds the page");
    // Who is left alone when others have released their copies has a read copy still.
    const bool alone = shape_.elastic ? holders == 1 && right == Right::kExclusive : holders == 1;
    if (entered(host) && alone != (right == Right::kExclusive))
      fail("a right does not fit the copyset");
    if (entered(host) && facts.held_version != directory.version)
      fail("a copy is not of the directory's version");
    if (host == owner && facts.reads_served != directory.reads_sent)
      fail("manager and owner have not counted the same reads");
    if (place.mapped != right && place.mapped != Right::kInvalid) {
      fail("a guest's mapping is not its host's right");
    }
  }
}

std::string System::describe(const Event& event) const {
  switch (event.kind) {
    case Event::Kind::kStart:
      return text("host %d: vCPU %d starts to %s", host_of(event.a), event.a,
                  word(static_cast<Op>(event.b))) +
             text(" page %d", event.c);
    case Event::Kind::kRetry:
      return text("host %d: vCPU %d tries again to %s", host_of(event.a), event.a,
                  word(vcpus_[event.a].op)) +
             text(" page %d", vcpus_[event.a].page);
    case Event::Kind::kDeliver: return "arrives: " + text(in_flight_[event.a].message);
    case Event::Kind::kRepeat: return "arrives twice: " + text(in_flight_[event.a].message);
    case Event::Kind::kStep: {
      const ivy::Step& step = work_[event.a][event.b].steps[work_[event.a][event.b].at];
      return text("host %d, page %d: %s", event.a, event.b, word(step.kind)) +
             (step.kind == ivy::Step::Kind::kSend ? " " + text(step.message) : std::string());
    }
    case Event::Kind::kCrash: return text("host %d stops dead", event.a);
    case Event::Kind::kLose: return "never arrives: " + text(in_flight_[event.a].message);
    case Event::Kind::kTake: return text("host %d takes slot %d", event.a, event.b);
    case Event::Kind::kHandRow: return text("host %d hands over slot %d", event.a, event.b);
    case Event::Kind::kJoin: return text("host %d joins", event.a);
    case Event::Kind::kDrain: return text("host %d drains", event.a);
    case Event::Kind::kGiveUp: return text("host %d gives up page %d", event.a, event.b);
    case Event::Kind::kGiveSlot: return text("host %d offers slot %d", event.a, event.b);
    case Event::Kind::kLearn: return text("host %d learns the table", event.a);
    case Event::Kind::kRebuild: {
      static constexpr const char* kWords[] = {
          "freezes", "forgets its rows", "claims", "judges", "abandons its requests", "thaws", "?"};
      const auto stage = static_cast<unsigned>(rebuild_.stages[event.a]);
      return text("host %d ", event.a) + kWords[stage];
    }
    case Event::Kind::kForgetHome: return text("host %d hears that the home leaves", event.a);
    case Event::Kind::kLeave: return text("host %d leaves", event.a);
    case Event::Kind::kUnmap: return text("host %d unmaps page %d", event.a, event.b);
  }
  return "?";
}

std::string System::describe_state() const {
  std::string lines;
  for (unsigned page = 0; page < shape_.pages; ++page) {
    lines += text("  page %u (manager %d): ", page, manager_of(page));
    for (unsigned host = 0; host < shape_.hosts; ++host) {
      const Place& place = places_[host][page];
      lines +=
          text("host %u %c value %u; ", host, "-rw"[static_cast<int>(place.mapped)], place.frame);
    }
    lines += text("last written %u\n", current_[page]);
  }
  for (const InFlight& flight : in_flight_) lines += "  in flight: " + text(flight.message) + "\n";
  return lines;
}

}  // namespace xenspan::dsm::sim
