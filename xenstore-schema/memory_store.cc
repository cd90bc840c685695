#include "xenstore-schema/memory_store.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace xenspan::xenstore {
namespace {

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

Error no_node(const std::string& path) {
  return system_error(ENOENT, fmt::format("cannot read xenstore {}", path));
}

}  // namespace

MemoryTree::MemoryTree() { nodes_["/"].generation = ++last_generation_; }

uint64_t MemoryTree::generation(const std::string& path) const {
  const auto it = nodes_.find(path);
  return it == nodes_.end() ? 0 : it->second.generation;
}

void MemoryTree::touch(const std::string& path, Trace& trace) const {
  trace.touched.emplace(path, generation(path));
}

std::pair<MemoryTree::Map::const_iterator, MemoryTree::Map::const_iterator> MemoryTree::below(
    const std::string& path) const {
  if (path == "/") return {std::next(nodes_.begin()), nodes_.end()};
  // '0' is the character after '/': every path between has the prefix "path/".
  return {nodes_.lower_bound(path + '/'), nodes_.lower_bound(path + '0')};
}

Result<std::string> MemoryTree::read(const std::string& path, Trace& trace) const {
  if (Status status = check_path(path); !status) return status.error();
  touch(path, trace);
  const auto it = nodes_.find(path);
  if (it == nodes_.end()) return no_node(path);
  return it->second.value;
}

Result<std::vector<std::string>> MemoryTree::list(const std::string& path, Trace& trace) const {
  if (Status status = check_path(path); !status) return status.error();
  touch(path, trace);
  if (!nodes_.contains(path)) return no_node(path);
  const size_t skip = path == "/" ? 1 : path.size() + 1;
  std::vector<std::string> names;
  const auto [first, last] = below(path);
  for (auto it = first; it != last; ++it) {
    if (it->first.find('/', skip) == std::string::npos) names.push_back(it->first.substr(skip));
  }
  std::sort(names.begin(), names.end());
  return names;
}

void MemoryTree::create(const std::string& path, Trace& trace) {
  touch(path, trace);
  if (nodes_.contains(path)) return;
  const std::string parent = parent_of(path);
  create(parent, trace);
  nodes_[path].generation = ++last_generation_;
  nodes_[parent].generation = ++last_generation_;  // a node's list of children is part of it
}

Status MemoryTree::write(const std::string& path, std::string_view value, Trace& trace) {
  if (Status status = check_node(path, value); !status) return status;
  create(path, trace);
  Node& node = nodes_[path];
  node.value = value;
  node.generation = ++last_generation_;
  trace.changes.push_back({path, false});
  return {};
}

Status MemoryTree::mkdir(const std::string& path, Trace& trace) {
  if (Status status = check_path(path); !status) return status;
  touch(path, trace);
  if (nodes_.contains(path)) return {};
  create(path, trace);
  trace.changes.push_back({path, false});
  return {};
}

Status MemoryTree::remove(const std::string& path, Trace& trace) {
  if (Status status = check_path(path); !status) return status;
  if (path == "/") return system_error(EINVAL, "cannot remove xenstore /");
  touch(path, trace);
  if (!nodes_.contains(path)) return {};
  trace.changes.push_back({path, false});
  const auto [first, last] = below(path);
  for (auto it = first; it != last; ++it) {
    touch(it->first, trace);
    trace.changes.push_back({it->first, true});
  }
  nodes_.erase(first, last);
  nodes_.erase(path);
  const std::string parent = parent_of(path);
  touch(parent, trace);
  nodes_[parent].generation = ++last_generation_;
  return {};
}

// Works on a copy of the tree, and repeats its changes on the real one at commit.
class MemoryStore::MemoryTransaction final : public Transaction {
 public:
  explicit MemoryTransaction(MemoryStore& store) : store_(store), tree_(store.tree_) {}

  Result<std::string> read(const std::string& path) override { return tree_.read(path, trace_); }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return tree_.list(path, trace_);
  }
  Status write(const std::string& path, std::string_view value) override {
    return change([path, value = std::string(value)](MemoryTree& tree, MemoryTree::Trace& trace) {
      return tree.write(path, value, trace);
    });
  }
  Status mkdir(const std::string& path) override {
    return change(
        [path](MemoryTree& tree, MemoryTree::Trace& trace) { return tree.mkdir(path, trace); });
  }
  Status remove(const std::string& path) override {
    return change(
        [path](MemoryTree& tree, MemoryTree::Trace& trace) { return tree.remove(path, trace); });
  }

  Status commit() override {
    if (std::exchange(ended_, true)) return system_error(EINVAL, "this transaction has ended");
    for (const auto& [path, generation] : trace_.touched) {
      if (store_.tree_.generation(path) != generation) {
        return system_error(EAGAIN, fmt::format("xenstore {} changed during a transaction", path));
      }
    }
    MemoryTree::Trace trace;
    for (const Change& change : changes_) {
      if (Status status = change(store_.tree_, trace); !status) return status;
    }
    store_.fire(trace);
    return {};
  }

 private:
  using Change = std::function<Status(MemoryTree&, MemoryTree::Trace&)>;

  Status change(Change change) {
    Status status = change(tree_, trace_);
    if (status) changes_.push_back(std::move(change));
    return status;
  }

  MemoryStore& store_;
  MemoryTree tree_;
  MemoryTree::Trace trace_;
  std::vector<Change> changes_;
  bool ended_ = false;
};

MemoryStore::MemoryStore() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!event_) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Result<std::string> MemoryStore::read(const std::string& path) {
  MemoryTree::Trace trace;
  return tree_.read(path, trace);
}

Result<std::vector<std::string>> MemoryStore::list(const std::string& path) {
  MemoryTree::Trace trace;
  return tree_.list(path, trace);
}

Status MemoryStore::write(const std::string& path, std::string_view value) {
  MemoryTree::Trace trace;
  Status status = tree_.write(path, value, trace);
  fire(trace);
  return status;
}

Status MemoryStore::mkdir(const std::string& path) {
  MemoryTree::Trace trace;
  Status status = tree_.mkdir(path, trace);
  fire(trace);
  return status;
}

Status MemoryStore::remove(const std::string& path) {
  MemoryTree::Trace trace;
  Status status = tree_.remove(path, trace);
  fire(trace);
  return status;
}

Result<std::unique_ptr<Transaction>> MemoryStore::begin() {
  return std::unique_ptr<Transaction>(std::make_unique<MemoryTransaction>(*this));
}

Status MemoryStore::watch(const std::string& path, const std::string& token,
                          WatchCallback callback) {
  if (!path.starts_with('@')) {
    if (Status status = check_path(path); !status) return status;
  }
  for (const auto& [id, watch] : watches_) {
    if (watch.path == path && watch.token == token) {
      return system_error(EEXIST, fmt::format("cannot watch xenstore {} as '{}'", path, token));
    }
  }
  const uint64_t id = ++last_watch_;
  watches_.emplace(id, Watch{path, token, std::move(callback)});
  queue(id, path);
  return {};
}

Status MemoryStore::unwatch(const std::string& path, const std::string& token) {
  for (auto it = watches_.begin(); it != watches_.end(); ++it) {
    if (it->second.path != path || it->second.token != token) continue;
    std::erase_if(events_, [&](const Event& event) { return event.watch == it->first; });
    watches_.erase(it);
    if (events_.empty()) set_readable(false);
    return {};
  }
  return system_error(ENOENT, fmt::format("xenstore {} is not watched as '{}'", path, token));
}

Status MemoryStore::process() {
  while (!events_.empty()) {
    const Event event = std::move(events_.front());
    events_.pop_front();
    // A copy: the callback may end its own watch.
    const Watch watch = watches_.at(event.watch);
    watch.callback(event.path, watch.token);
  }
  set_readable(false);
  return {};
}

void MemoryStore::fire(const MemoryTree::Trace& trace) {
  for (const auto& change : trace.changes) {
    for (const auto& [id, watch] : watches_) {
      if (change.exact ? change.path == watch.path : is_below(change.path, watch.path)) {
        queue(id, change.path);
      }
    }
  }
}

// An event that already waits is not queued twice, as in xenstored: what counts is to look again.
void MemoryStore::queue(uint64_t watch, const std::string& path) {
  for (const Event& event : events_) {
    if (event.watch == watch && event.path == path) return;
  }
  events_.push_back({watch, path});
  set_readable(true);
}

void MemoryStore::set_readable(bool readable) {
  uint64_t count = 1;
  // Both fail only with EAGAIN, when the descriptor is already as wanted.
  [[maybe_unused]] const ssize_t done = readable ? ::write(event_.get(), &count, sizeof count)
                                                 : ::read(event_.get(), &count, sizeof count);
}

}  // namespace xenspan::xenstore
