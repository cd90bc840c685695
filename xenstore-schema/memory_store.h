// MemoryStore: a store inside the process. For a build or a machine without xenstored, and for
// tests of logic.
//
// Behaves as xenstored does: writing makes parents, watches fire once at registration and then for
// the node and all below it, changes of a transaction are seen together at its commit, and a commit
// fails with EAGAIN when a node that it touched has changed meanwhile. Nobody outside the process
// sees it. One thread; the caller owns it.
#pragma once

#include <deque>
#include <map>

#include "base/unique_fd.h"
#include "xenstore-schema/store.h"

namespace xenspan::xenstore {

// The nodes themselves, without watches or transactions.
class MemoryTree {
 public:
  // What operations touched and changed; the caller keeps it.
  struct Trace {
    // Path to the node's generation when it was first touched (0: there was no node).
    std::map<std::string, uint64_t> touched;
    struct Change {
      std::string path;
      bool exact;  // Fires only a watch on this very path: the node went with one above it.
    };
    std::vector<Change> changes;
  };

  MemoryTree();
  Result<std::string> read(const std::string& path, Trace& trace) const;
  Result<std::vector<std::string>> list(const std::string& path, Trace& trace) const;
  Status write(const std::string& path, std::string_view value, Trace& trace);
  Status mkdir(const std::string& path, Trace& trace);
  Status remove(const std::string& path, Trace& trace);
  uint64_t generation(const std::string& path) const;

 private:
  struct Node {
    std::string value;
    uint64_t generation = 0;
  };
  using Map = std::map<std::string, Node>;

  void touch(const std::string& path, Trace& trace) const;
  void create(const std::string& path, Trace& trace);
  // Below path, without path itself: [first, last).
  std::pair<Map::const_iterator, Map::const_iterator> below(const std::string& path) const;

  Map nodes_;
  uint64_t last_generation_ = 0;
};

class MemoryStore final : public Store {
 public:
  MemoryStore();
  Result<std::string> read(const std::string& path) override;
  Status write(const std::string& path, std::string_view value) override;
  Status mkdir(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  Status remove(const std::string& path) override;
  Result<std::unique_ptr<Transaction>> begin() override;
  Status watch(const std::string& path, const std::string& token, WatchCallback callback) override;
  Status unwatch(const std::string& path, const std::string& token) override;
  int fd() override { return event_.get(); }
  Status process() override;

 private:
  class MemoryTransaction;
  struct Watch {
    std::string path;
    std::string token;
    WatchCallback callback;
  };
  struct Event {
    uint64_t watch;
    std::string path;
  };

  void fire(const MemoryTree::Trace& trace);
  void queue(uint64_t watch, const std::string& path);
  void set_readable(bool readable);

  MemoryTree tree_;
  std::map<uint64_t, Watch> watches_;  // by registration, so that events come in that order
  uint64_t last_watch_ = 0;
  std::deque<Event> events_;
  UniqueFd event_;
};

}  // namespace xenspan::xenstore
