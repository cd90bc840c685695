// The store: what every room sees of xenstore, whether it is a real xenstored (XenstoreStore) or
// one kept inside the process (MemoryStore). A store is a tree of nodes; a node has a path, a value
// and children.
//
// Called by xenspand, the command line and tests. A store, its transactions and its watches belong
// to one thread: the one that runs the event loop. The caller owns the store and must destroy
// transactions before it.
//
// Errors carry an errno: ENOENT no such node, EINVAL a bad path, E2BIG a value that does not fit
// into one message, EAGAIN a transaction that lost to another writer, EBADF or EPIPE a lost
// connection.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace xenspan::xenstore {

// xenstored takes path, a zero byte and value in one message of this many bytes
// (XENSTORE_PAYLOAD_MAX).
inline constexpr size_t kMaxPayload = 4096;
// The longest absolute path (XENSTORE_ABS_PATH_MAX).
inline constexpr size_t kMaxPath = 3072;

// Nodes: what can be done outside and inside a transaction alike.
class Nodes {
 public:
  virtual ~Nodes() = default;

  // The value of a node; "" for one made by mkdir. ENOENT when there is no such node.
  virtual Result<std::string> read(const std::string& path) = 0;
  // Makes the node, and its parents, if need be.
  virtual Status write(const std::string& path, std::string_view value) = 0;
  // Makes an empty node; one that exists keeps its value.
  virtual Status mkdir(const std::string& path) = 0;
  // Names of the children, sorted. ENOENT when there is no such node.
  virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
  // Removes the node and all below it. Success when there was none.
  virtual Status remove(const std::string& path) = 0;
  // Runs body so that others see all of its changes or none. On a store this is a transaction,
  // tried again when another writer was faster, so body may run several times and must have no
  // other effects. Inside a transaction body becomes part of it. When body fails nothing is changed
  // and its error is returned.
  virtual Status atomically(const std::function<Status(Nodes&)>& body) = 0;

  // The value, or nothing when there is no such node.
  Result<std::optional<std::string>> find(const std::string& path);
};

// A transaction: ends with commit(); destroying it before that drops all its changes.
class Transaction : public Nodes {
 public:
  // EAGAIN: another writer changed a node that this transaction read or wrote; nothing was changed.
  // Begin again.
  virtual Status commit() = 0;
  Status atomically(const std::function<Status(Nodes&)>& body) final { return body(*this); }
};

class Store : public Nodes {
 public:
  // path is what changed: the watched node or one below it. Called from process() only. It may use
  // the store, and may watch and unwatch.
  using WatchCallback = std::function<void(const std::string& path, const std::string& token)>;

  virtual Result<std::unique_ptr<Transaction>> begin() = 0;
  Status atomically(const std::function<Status(Nodes&)>& body) final;

  // Calls callback once soon after registration, then after every change of the node or one below
  // it, also by this same store. Several changes may be told as one. path may be special
  // ("@introduceDomain"). (path, token) must not be watched already (EEXIST).
  virtual Status watch(const std::string& path, const std::string& token,
                       WatchCallback callback) = 0;
  // After this the callback is not called again. ENOENT when (path, token) is not watched.
  virtual Status unwatch(const std::string& path, const std::string& token) = 0;

  // Readable (poll, level-triggered) while watch events wait. Owned by the store, the same for its
  // whole life.
  virtual int fd() = 0;
  // Delivers what waits; never blocks for more.
  virtual Status process() = 0;
};

// Why path is not a path that xenstored accepts: absolute, no empty part, letters, digits and -/_@
// only.
Status check_path(const std::string& path);
// check_path, and whether path and value fit into one message.
Status check_node(const std::string& path, std::string_view value);
// True when path is the node above, or below it. "/" is above all.
bool is_below(const std::string& path, const std::string& above);

}  // namespace xenspan::xenstore
