#include "dom0-daemon/hypervisor/usermode/futex_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint32_t kAny = ~std::uint32_t{0};
using Tickets = std::vector<FutexTicket>;

TEST(FutexTable, WakesInTheOrderOfComing) {
  FutexTable table;
  for (FutexTicket ticket = 1; ticket <= 4; ++ticket) table.enqueue(0x1000, kAny, ticket);
  table.enqueue(0x2000, kAny, 9);
  EXPECT_EQ(table.wake(0x1000, 0, kAny), Tickets{});
  EXPECT_EQ(table.wake(0x1000, 2, kAny), (Tickets{1, 2}));
  EXPECT_EQ(table.wake(0x1000, 100, kAny), (Tickets{3, 4}));
  EXPECT_EQ(table.wake(0x1000, 1, kAny), Tickets{});
  EXPECT_EQ(table.waiting(), 1u);
}

TEST(FutexTable, WakesOnlyOverlappingBitsets) {
  FutexTable table;
  table.enqueue(0x1000, 1, 1);
  table.enqueue(0x1000, 2, 2);
  table.enqueue(0x1000, 3, 3);
  EXPECT_EQ(table.wake(0x1000, 1, 2), (Tickets{2}));
  EXPECT_EQ(table.wake(0x1000, 9, 2), (Tickets{3}));
  EXPECT_EQ(table.wake(0x1000, 9, 4), Tickets{});
  EXPECT_EQ(table.wake(0x1000, 9, 1), (Tickets{1}));
}

TEST(FutexTable, CancelTellsWhetherTheWakeWasTaken) {
  FutexTable table;
  table.enqueue(0x1000, kAny, 1);
  table.enqueue(0x1000, kAny, 2);
  EXPECT_TRUE(table.cancel(1));
  EXPECT_FALSE(table.cancel(1));
  EXPECT_EQ(table.wake(0x1000, 1, kAny), (Tickets{2}));
  EXPECT_FALSE(table.cancel(2)) << "woken: the wake counts";
  table.enqueue(0x1000, kAny, 2);
  EXPECT_TRUE(table.cancel(2)) << "a ticket may come back when it is out";
  EXPECT_EQ(table.waiting(), 0u);
}

TEST(FutexTable, RequeueWakesSomeAndMovesOthersBehindThoseThere) {
  FutexTable table;
  for (FutexTicket ticket = 1; ticket <= 5; ++ticket) table.enqueue(0x1000, kAny, ticket);
  table.enqueue(0x2000, kAny, 6);
  unsigned moved = 0;
  EXPECT_EQ(table.requeue(0x1000, 0x2000, 1, 3, &moved), (Tickets{1}));
  EXPECT_EQ(moved, 3u);
  EXPECT_TRUE(table.cancel(3)) << "a moved waiter is found at its new place";
  EXPECT_EQ(table.wake(0x2000, 9, kAny), (Tickets{6, 2, 4}));
  EXPECT_EQ(table.wake(0x1000, 9, kAny), (Tickets{5}));
}

TEST(FutexTable, RequeueToTheSameWordAndOfNobody) {
  FutexTable table;
  unsigned moved = 7;
  EXPECT_EQ(table.requeue(0x1000, 0x2000, 1, 1, &moved), Tickets{});
  EXPECT_EQ(moved, 0u);
  table.enqueue(0x1000, kAny, 1);
  table.enqueue(0x1000, kAny, 2);
  EXPECT_EQ(table.requeue(0x1000, 0x1000, 0, 9, &moved), Tickets{});
  EXPECT_EQ(moved, 2u);
  EXPECT_EQ(table.wake(0x1000, 9, kAny), (Tickets{1, 2}));
}

// The same operations on the table and on the plainest model of it: one list in order of coming.
TEST(FutexTable, AgreesWithAListOverRandomOperations) {
  struct Entry {
    std::uint64_t address;
    std::uint32_t bitset;
    FutexTicket ticket;
  };
  std::mt19937 random(11);
  FutexTable table;
  std::vector<Entry> model;
  const auto model_wake = [&model](std::uint64_t address, unsigned count, std::uint32_t bitset) {
    Tickets woken;
    for (auto it = model.begin(); it != model.end() && woken.size() < count;) {
      if (it->address == address && (it->bitset & bitset) != 0) {
        woken.push_back(it->ticket);
        it = model.erase(it);
      } else {
        ++it;
      }
    }
    return woken;
  };
  FutexTicket next = 1;
  for (int step = 0; step < 20000; ++step) {
    const std::uint64_t address = random() % 4 * 4, other = random() % 4 * 4;
    const std::uint32_t bitset = 1 + random() % 7;
    const unsigned count = random() % 4, move_count = random() % 4;
    switch (random() % 6) {
      case 0:
      case 1:
        table.enqueue(address, bitset, next);
        model.push_back({address, bitset, next++});
        break;
      case 2: {
        const FutexTicket ticket = 1 + random() % next;
        const auto it = std::find_if(model.begin(), model.end(), [ticket](const Entry& entry) {
          return entry.ticket == ticket;
        });
        ASSERT_EQ(table.cancel(ticket), it != model.end());
        if (it != model.end()) model.erase(it);
        break;
      }
      case 3:
      case 4:
        ASSERT_EQ(table.wake(address, count, bitset), model_wake(address, count, bitset));
        break;
      default: {
        unsigned moved = 0;
        ASSERT_EQ(table.requeue(address, other, count, move_count, &moved),
                  model_wake(address, count, kAny));
        std::vector<Entry> movers;
        for (auto it = model.begin();
             address != other && it != model.end() && movers.size() < move_count;) {
          if (it->address == address) {
            movers.push_back(*it);
            it = model.erase(it);
          } else {
            ++it;
          }
        }
        for (Entry& entry : movers) {
          entry.address = other;
          model.push_back(entry);
        }
        if (address != other) {
          ASSERT_EQ(moved, movers.size());
        }
      }
    }
    ASSERT_EQ(table.waiting(), model.size());
  }
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
