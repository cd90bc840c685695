// The store's contract, held against a genuine xenstored and against the in-process store alike.
#include <event2/event.h>

#include <map>

#include "tests/unit/xenstore_fixture.h"
#include "xenstore-schema/paths.h"
#include "xenstore-schema/tree.h"
#include "xenstore-schema/watch_loop.h"

namespace xenspan::xenstore {
namespace {

TYPED_TEST_SUITE(StoreTest, Backends);

TYPED_TEST(StoreTest, ReadsWhatAnotherWrote) {
  Store& store = this->store();
  ASSERT_OK(store.write("/tool/xenspan/a/b", "value with spaces"));
  const auto value = this->other().read("/tool/xenspan/a/b");
  ASSERT_OK(value);
  EXPECT_EQ(*value, "value with spaces");
  // Writing made the parent, without a value.
  EXPECT_EQ(store.read("/tool/xenspan/a").value(), "");
}

TYPED_TEST(StoreTest, KeepsBytes) {
  const std::string bytes("a\0b\n\xff", 5);
  ASSERT_OK(this->store().write("/tool/x", bytes));
  EXPECT_EQ(this->store().read("/tool/x").value(), bytes);
  ASSERT_OK(this->store().write("/tool/x", ""));
  EXPECT_EQ(this->store().read("/tool/x").value(), "");
}

TYPED_TEST(StoreTest, MissingNodeIsEnoent) {
  Store& store = this->store();
  EXPECT_EQ(store.read("/tool/none").error().code, ENOENT);
  EXPECT_EQ(store.list("/tool/none").error().code, ENOENT);
  EXPECT_NE(store.read("/tool/none").error().message.find("/tool/none"), std::string::npos);
  const auto found = store.find("/tool/none");
  ASSERT_OK(found);
  EXPECT_FALSE(found->has_value());
  EXPECT_OK(store.remove("/tool/none"));
  EXPECT_OK(store.remove("/nowhere/at/all"));
}

TYPED_TEST(StoreTest, ListsChildrenSorted) {
  Store& store = this->store();
  ASSERT_OK(store.write("/tool/t/b/deep", "1"));
  ASSERT_OK(store.write("/tool/t/c", "2"));
  ASSERT_OK(store.mkdir("/tool/t/a"));
  ASSERT_OK(store.write("/tool/t-not", "3"));
  EXPECT_EQ(store.list("/tool/t").value(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(store.list("/tool/t/a").value().empty());
}

TYPED_TEST(StoreTest, ListsMoreThanOneMessageHolds) {
  Store& store = this->store();
  constexpr int kNodes = 400;  // 400 names of 30 bytes: three messages
  ASSERT_OK(store.atomically([](Nodes& nodes) -> Status {
    for (int i = 0; i < kNodes; ++i) {
      Status status =
          nodes.write("/tool/many/" + std::string(26, 'n') + std::to_string(1000 + i), "");
      if (!status) return status;
    }
    return {};
  }));
  EXPECT_EQ(store.list("/tool/many").value().size(), size_t{kNodes});
}

TYPED_TEST(StoreTest, RemovesSubtree) {
  Store& store = this->store();
  ASSERT_OK(store.write("/tool/t/a/b", "1"));
  ASSERT_OK(store.write("/tool/t/a/c", "2"));
  ASSERT_OK(store.write("/tool/t/ab", "3"));
  ASSERT_OK(store.remove("/tool/t/a"));
  EXPECT_EQ(store.list("/tool/t").value(), (std::vector<std::string>{"ab"}));
  EXPECT_EQ(store.read("/tool/t/a/b").error().code, ENOENT);
  EXPECT_EQ(store.remove("/").error().code, EINVAL);
}

TYPED_TEST(StoreTest, MkdirKeepsAValue) {
  ASSERT_OK(this->store().write("/tool/x", "kept"));
  ASSERT_OK(this->store().mkdir("/tool/x"));
  EXPECT_EQ(this->store().read("/tool/x").value(), "kept");
}

TYPED_TEST(StoreTest, RefusesBadPaths) {
  Store& store = this->store();
  for (const char* path : {"", "relative", "/a//b", "/a/", "/a b", "/a.b", "/ä", "/a\nb"}) {
    EXPECT_EQ(store.write(path, "x").error().code, EINVAL) << path;
    EXPECT_EQ(store.read(path).error().code, EINVAL) << path;
    EXPECT_EQ(store.mkdir(path).error().code, EINVAL) << path;
    EXPECT_EQ(store.remove(path).error().code, EINVAL) << path;
    EXPECT_EQ(store.list(path).error().code, EINVAL) << path;
  }
  EXPECT_EQ(store.write("/" + std::string(kMaxPath, 'x'), "").error().code, EINVAL);
}

TYPED_TEST(StoreTest, LongestValueFitsAndNoLonger) {
  Store& store = this->store();
  const std::string path = "/tool/long";
  const std::string most(kMaxPayload - path.size() - 1, 'v');
  ASSERT_OK(store.write(path, most));
  EXPECT_EQ(store.read(path).value(), most);
  EXPECT_EQ(store.write(path, most + "v").error().code, E2BIG);
  EXPECT_EQ(store.read(path).value(), most);
}

TYPED_TEST(StoreTest, TransactionIsSeenWholeOrNotAtAll) {
  auto transaction = this->store().begin();
  ASSERT_OK(transaction);
  ASSERT_OK((*transaction)->write("/tool/t/a", "1"));
  ASSERT_OK((*transaction)->write("/tool/t/b", "2"));
  EXPECT_EQ((*transaction)->read("/tool/t/a").value(), "1");
  EXPECT_EQ((*transaction)->list("/tool/t").value(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(this->other().read("/tool/t/a").error().code, ENOENT);
  ASSERT_OK((*transaction)->commit());
  EXPECT_EQ(this->other().read("/tool/t/a").value(), "1");
  EXPECT_EQ(this->other().read("/tool/t/b").value(), "2");
  EXPECT_EQ((*transaction)->commit().error().code, EINVAL);
}

TYPED_TEST(StoreTest, DroppedTransactionChangesNothing) {
  ASSERT_OK(this->store().write("/tool/t/a", "old"));
  {
    auto transaction = this->store().begin();
    ASSERT_OK(transaction);
    ASSERT_OK((*transaction)->write("/tool/t/a", "new"));
    ASSERT_OK((*transaction)->remove("/tool/t"));
  }
  EXPECT_EQ(this->store().read("/tool/t/a").value(), "old");
}

TYPED_TEST(StoreTest, CommitConflictsWithAWriteToWhatItRead) {
  ASSERT_OK(this->store().write("/tool/n", "1"));
  auto transaction = this->store().begin();
  ASSERT_OK(transaction);
  ASSERT_OK((*transaction)->read("/tool/n"));
  ASSERT_OK((*transaction)->write("/tool/sum", "1"));
  ASSERT_OK(this->other().write("/tool/n", "2"));
  EXPECT_EQ((*transaction)->commit().error().code, EAGAIN);
  EXPECT_EQ(this->store().read("/tool/sum").error().code, ENOENT);
}

TYPED_TEST(StoreTest, CommitConflictsWithANewChildOfWhatItListed) {
  ASSERT_OK(this->store().write("/tool/d/a", ""));
  auto transaction = this->store().begin();
  ASSERT_OK(transaction);
  ASSERT_OK((*transaction)->list("/tool/d"));
  ASSERT_OK((*transaction)->write("/tool/count", "1"));
  ASSERT_OK(this->other().write("/tool/d/b", ""));
  EXPECT_EQ((*transaction)->commit().error().code, EAGAIN);
}

TYPED_TEST(StoreTest, CommitDoesNotConflictWithOtherNodes) {
  ASSERT_OK(this->store().write("/tool/n", "1"));
  ASSERT_OK(this->store().write("/tool/other", "1"));
  auto transaction = this->store().begin();
  ASSERT_OK(transaction);
  ASSERT_OK((*transaction)->write("/tool/n", "2"));
  ASSERT_OK(this->other().write("/tool/other", "2"));
  EXPECT_OK((*transaction)->commit());
}

TYPED_TEST(StoreTest, AtomicallyTriesAgainAfterAConflict) {
  ASSERT_OK(this->store().write("/tool/n", "10"));
  int runs = 0;
  ASSERT_OK(this->store().atomically([&](Nodes& nodes) -> Status {
    const auto n = nodes.read("/tool/n");
    if (!n) return n.error();
    // Another writer gets in between, three times.
    if (++runs <= 3) {
      if (Status status = this->other().write("/tool/n", std::to_string(10 + runs)); !status)
        return status;
    }
    return nodes.write("/tool/n", std::to_string(std::stoi(*n) * 2));
  }));
  EXPECT_EQ(runs, 4);
  EXPECT_EQ(this->store().read("/tool/n").value(), "26");
}

TYPED_TEST(StoreTest, AtomicallyGivesUpWhenItAlwaysLoses) {
  int n = 0;
  ASSERT_OK(this->store().write("/tool/n", "0"));
  const Status status = this->store().atomically([&](Nodes& nodes) -> Status {
    const auto old = nodes.read("/tool/n");
    if (!old) return old.error();
    if (Status raced = this->other().write("/tool/n", std::to_string(++n)); !raced) return raced;
    return nodes.write("/tool/n", "mine");
  });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EAGAIN);
  EXPECT_EQ(this->store().read("/tool/n").value(), std::to_string(n));
}

TYPED_TEST(StoreTest, AtomicallyDropsAllWhenBodyFails) {
  const Status status = this->store().atomically([](Nodes& nodes) -> Status {
    if (Status written = nodes.write("/tool/half", "1"); !written) return written;
    return nodes.atomically([](Nodes&) -> Status { return Error{EPERM, "no"}; });
  });
  EXPECT_EQ(status.error().code, EPERM);
  EXPECT_EQ(this->store().read("/tool/half").error().code, ENOENT);
}

TYPED_TEST(StoreTest, WatchFiresOnceAtRegistrationThenForNodeAndBelow) {
  std::vector<std::string> seen;
  ASSERT_OK(this->store().watch("/tool/w", "token",
                                [&](const std::string& path, const std::string& token) {
                                  EXPECT_EQ(token, "token");
                                  seen.push_back(path);
                                }));
  ASSERT_TRUE(this->process_until([&] { return seen.size() == 1; }));
  EXPECT_EQ(seen.back(), "/tool/w");
  ASSERT_OK(this->other().write("/tool/w/x/y", "1"));
  ASSERT_TRUE(this->process_until([&] { return seen.size() == 2; }));
  EXPECT_EQ(seen.back(), "/tool/w/x/y");
  ASSERT_OK(this->other().write("/tool/wide", "not watched"));
  ASSERT_OK(this->other().mkdir("/tool/w/x/y"));  // is there: no change
  ASSERT_OK(this->store().write("/tool/w", "own write"));
  ASSERT_TRUE(this->process_until([&] { return seen.size() == 3; }));
  EXPECT_EQ(seen.back(), "/tool/w");
}

TYPED_TEST(StoreTest, WatchHearsOfRemovalAboveAndBelow) {
  std::map<std::string, std::vector<std::string>> seen;
  const auto note = [&](const std::string& path, const std::string& token) {
    seen[token].push_back(path);
  };
  ASSERT_OK(this->store().write("/tool/r/a/b", "1"));
  ASSERT_OK(this->store().watch("/tool/r", "above", note));
  ASSERT_OK(this->store().watch("/tool/r/a/b", "node", note));
  ASSERT_OK(this->store().watch("/tool/r/a/b/c", "none", note));
  ASSERT_TRUE(this->process_until([&] { return seen.size() == 3; }));
  seen.clear();
  ASSERT_OK(this->other().remove("/tool/r/a"));
  ASSERT_OK(this->other().write("/tool/r/end", ""));
  ASSERT_TRUE(
      this->process_until([&] { return seen["above"].size() == 2 && !seen["node"].empty(); }));
  EXPECT_EQ(seen["above"], (std::vector<std::string>{"/tool/r/a", "/tool/r/end"}));
  EXPECT_EQ(seen["node"], (std::vector<std::string>{"/tool/r/a/b"}));
  EXPECT_FALSE(seen.contains("none"));
}

TYPED_TEST(StoreTest, WatchFiresAtCommitOnly) {
  std::vector<std::string> seen;
  ASSERT_OK(this->store().watch(
      "/tool/c", "t", [&](const std::string& path, const std::string&) { seen.push_back(path); }));
  ASSERT_TRUE(this->process_until([&] { return seen.size() == 1; }));
  seen.clear();
  {
    auto dropped = this->other().begin();
    ASSERT_OK(dropped);
    ASSERT_OK((*dropped)->write("/tool/c/dropped", "1"));
  }
  auto transaction = this->other().begin();
  ASSERT_OK(transaction);
  ASSERT_OK((*transaction)->write("/tool/c/inside", "1"));
  ASSERT_OK(this->other().write("/tool/c", "before the commit"));
  ASSERT_TRUE(this->process_until([&] { return !seen.empty(); }));
  EXPECT_EQ(seen, (std::vector<std::string>{"/tool/c"}));
  // The transaction made a child of a node that has changed: it lost, and fires nothing.
  EXPECT_EQ((*transaction)->commit().error().code, EAGAIN);
  auto again = this->other().begin();
  ASSERT_OK(again);
  ASSERT_OK((*again)->write("/tool/c/inside", "1"));
  ASSERT_OK((*again)->commit());
  ASSERT_TRUE(this->process_until([&] { return seen.size() >= 2; }));
  EXPECT_EQ(seen, (std::vector<std::string>{"/tool/c", "/tool/c/inside"}));
}

TYPED_TEST(StoreTest, UnwatchEndsCallbacks) {
  int ended = 0;
  int kept = 0;
  ASSERT_OK(this->store().watch("/tool/u", "ended",
                                [&](const std::string&, const std::string&) { ++ended; }));
  EXPECT_EQ(this->store().watch("/tool/u", "ended", nullptr).error().code, EEXIST);
  ASSERT_OK(this->store().watch("/tool/u", "kept",
                                [&](const std::string&, const std::string&) { ++kept; }));
  ASSERT_TRUE(this->process_until([&] { return ended == 1 && kept == 1; }));
  ASSERT_OK(this->other().write("/tool/u", "1"));  // may be on its way to both
  ASSERT_OK(this->store().unwatch("/tool/u", "ended"));
  ASSERT_OK(this->other().write("/tool/u/x", "2"));
  ASSERT_TRUE(this->process_until([&] { return kept == 3; }));
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(this->store().unwatch("/tool/u", "ended").error().code, ENOENT);
}

TYPED_TEST(StoreTest, CallbackMayUseTheStoreAndEndItsWatch) {
  int calls = 0;
  ASSERT_OK(this->store().write("/tool/self", "1"));
  ASSERT_OK(this->store().watch("/tool/self", "t",
                                [&](const std::string& path, const std::string& token) {
                                  ++calls;
                                  EXPECT_EQ(this->store().read(path).value(), "1");
                                  EXPECT_OK(this->store().unwatch(path, token));
                                  EXPECT_OK(this->store().write("/tool/done", "1"));
                                }));
  bool done = false;
  ASSERT_OK(this->store().watch("/tool/done", "t", [&](const std::string&, const std::string&) {
    done = this->store().read("/tool/done").ok();
  }));
  ASSERT_TRUE(this->process_until([&] { return done; }));
  ASSERT_OK(this->store().write("/tool/self", "2"));
  done = false;
  ASSERT_OK(this->store().write("/tool/done", "2"));
  ASSERT_TRUE(this->process_until([&] { return done; }));
  EXPECT_EQ(calls, 1);
}

TYPED_TEST(StoreTest, SpecialWatchIsAccepted) {
  int calls = 0;
  ASSERT_OK(this->store().watch("@introduceDomain", "t",
                                [&](const std::string& path, const std::string&) {
                                  ++calls;
                                  EXPECT_EQ(path, "@introduceDomain");
                                }));
  EXPECT_TRUE(this->process_until([&] { return calls == 1; }));
}

TYPED_TEST(StoreTest, WatchRunsInALibeventLoop) {
  const std::unique_ptr<event_base, void (*)(event_base*)> base(event_base_new(), event_base_free);
  ASSERT_TRUE(base);
  std::string last;
  ASSERT_OK(
      this->store().watch("/tool/loop", "t", [&](const std::string& path, const std::string&) {
        const auto value = this->store().find(path);
        ASSERT_OK(value);
        if (!*value) {
          ASSERT_OK(this->other().write("/tool/loop", "1"));
        } else if (**value == "1") {
          ASSERT_OK(this->other().write("/tool/loop", "2"));
        } else {
          last = **value;
          event_base_loopbreak(base.get());
        }
      }));
  const auto loop =
      WatchLoop::start(base.get(), this->store(), [](const Error& e) { FAIL() << e.message; });
  ASSERT_OK(loop);
  const timeval give_up{20, 0};
  event_base_loopexit(base.get(), &give_up);
  event_base_dispatch(base.get());
  EXPECT_EQ(last, "2");
}

// Subtrees.

TYPED_TEST(StoreTest, TreeGoesFromOnePrefixToAnother) {
  Store& store = this->store();
  const Tree tree{
      {"", ""}, {"member", ""}, {"member/b", ""}, {"member/b/vcpus", "2"}, {"state", "running"}};
  ASSERT_OK(apply_tree(store, "/tool/xenspan/x", tree));
  const auto read = read_tree(store, "/tool/xenspan/x");
  ASSERT_OK(read);
  EXPECT_EQ(*read, tree);
  ASSERT_OK(apply_tree(store, "/tool/xenspan/y", *read));
  EXPECT_EQ(store.read("/tool/xenspan/y/member/b/vcpus").value(), "2");
  EXPECT_TRUE(read_tree(store, "/tool/xenspan/none").value().empty());
}

TYPED_TEST(StoreTest, ApplyChangesOnlyWhatDiffers) {
  Store& store = this->store();
  ASSERT_OK(apply_tree(store, "/tool/m", {{"a", "1"}, {"b", "1"}}));
  std::vector<std::string> seen;
  ASSERT_OK(store.watch(
      "/tool/m", "t", [&](const std::string& path, const std::string&) { seen.push_back(path); }));
  ASSERT_TRUE(this->process_until([&] { return seen.size() == 1; }));
  seen.clear();
  ASSERT_OK(apply_tree(this->other(), "/tool/m", {{"a", "1"}, {"b", "2"}}));
  ASSERT_TRUE(this->process_until([&] { return !seen.empty(); }));
  EXPECT_EQ(seen, (std::vector<std::string>{"/tool/m/b"}));
}

TYPED_TEST(StoreTest, ReplaceRemovesTheRestButNotRequests) {
  Store& store = this->store();
  ASSERT_OK(apply_tree(store, "/tool/m", {{"keep/x", "1"}, {"keep/y", "1"}, {"gone/x", "1"}}));
  ASSERT_OK(store.write("/tool/m/request", "destroy"));
  ASSERT_OK(
      replace_tree(store, "/tool/m", {{"keep/x", "2"}, {"new", "3"}, {"request", "from a peer"}}));
  EXPECT_EQ(read_tree(store, "/tool/m").value(),
            (Tree{{"", ""}, {"keep", ""}, {"keep/x", "2"}, {"new", "3"}}));
  EXPECT_EQ(store.read("/tool/m/request").value(), "destroy");
  ASSERT_OK(replace_tree(store, "/tool/m", {}));
  EXPECT_EQ(store.read("/tool/m").error().code, ENOENT);
}

TYPED_TEST(StoreTest, TreeOfAPeerCannotLeaveItsPrefix) {
  Store& store = this->store();
  for (const char* relative : {"/local/domain/0", "a//b", "a/", "../x", "a b"}) {
    EXPECT_EQ(apply_tree(store, "/tool/m", {{"first", "1"}, {relative, "x"}}).error().code, EINVAL)
        << relative;
    EXPECT_EQ(replace_tree(store, "/tool/m", {{"first", "1"}, {relative, "x"}}).error().code,
              EINVAL)
        << relative;
  }
  EXPECT_EQ(apply_tree(store, "/tool/m", {{"big", std::string(kMaxPayload, 'x')}}).error().code,
            E2BIG);
  EXPECT_EQ(store.read("/tool/m/first").error().code, ENOENT);
}

TYPED_TEST(StoreTest, TreeReadIsOneMoment) {
  // A writer that always changes both nodes together is never seen half-way.
  Store& store = this->store();
  ASSERT_OK(apply_tree(store, "/tool/m", {{"a", "0"}, {"b", "0"}}));
  for (int i = 1; i <= 50; ++i) {
    ASSERT_OK(
        apply_tree(this->other(), "/tool/m", {{"a", std::to_string(i)}, {"b", std::to_string(i)}}));
    const auto tree = read_tree(store, "/tool/m");
    ASSERT_OK(tree);
    ASSERT_EQ(tree->size(), 3u);
    EXPECT_EQ((*tree)[1].second, (*tree)[2].second);
  }
}

}  // namespace
}  // namespace xenspan::xenstore
