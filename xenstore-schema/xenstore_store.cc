#include "xenstore-schema/xenstore_store.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/unique_fd.h"

extern "C" {
#include <xenstore.h>
}

namespace xenspan::xenstore {
namespace {

struct Free {
  void operator()(void* pointer) const { std::free(pointer); }
};
template <typename T>
using Allocated = std::unique_ptr<T, Free>;

Error failure(const std::string& what) {
  const int code = errno;
  const bool lost = code == EBADF || code == EPIPE || code == ECONNRESET;
  return system_error(code, what, lost ? "xenstored has ended: restart xenspand" : "");
}

Error failure(std::string_view action, const std::string& path) {
  return failure(fmt::format("cannot {} xenstore {}", action, path));
}

Result<std::string> read_node(xs_handle* handle, xs_transaction_t id, const std::string& path) {
  if (Status status = check_path(path); !status) return status.error();
  unsigned length = 0;
  const Allocated<char> value(static_cast<char*>(xs_read(handle, id, path.c_str(), &length)));
  if (!value) return failure("read", path);
  return std::string(value.get(), length);
}

Status write_node(xs_handle* handle, xs_transaction_t id, const std::string& path,
                  std::string_view value) {
  if (Status status = check_node(path, value); !status) return status;
  if (!xs_write(handle, id, path.c_str(), value.data(), value.size()))
    return failure("write", path);
  return {};
}

Status make_node(xs_handle* handle, xs_transaction_t id, const std::string& path) {
  if (Status status = check_path(path); !status) return status;
  if (!xs_mkdir(handle, id, path.c_str())) return failure("make", path);
  return {};
}

Result<std::vector<std::string>> list_node(xs_handle* handle, xs_transaction_t id,
                                           const std::string& path) {
  if (Status status = check_path(path); !status) return status.error();
  unsigned count = 0;
  const Allocated<char*> entries(xs_directory(handle, id, path.c_str(), &count));
  if (!entries) return failure("list", path);
  std::vector<std::string> names(entries.get(), entries.get() + count);
  std::sort(names.begin(), names.end());
  return names;
}

Status remove_node(xs_handle* handle, xs_transaction_t id, const std::string& path) {
  if (Status status = check_path(path); !status) return status;
  if (path == "/") return system_error(EINVAL, "cannot remove xenstore /");
  if (!xs_rm(handle, id, path.c_str()) && errno != ENOENT) return failure("remove", path);
  return {};
}

// libxenstore falls back to the kernel's xenbus when a socket does not answer, which would be
// another store.
Status check_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return system_error(ENAMETOOLONG, fmt::format("xenstored socket {}", path),
                        "use a shorter directory");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return system_error(errno, "cannot make a socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return {};
  return system_error(errno, fmt::format("cannot reach xenstored at {}", path),
                      "is xenspand running there?");
}

// Sets an environment variable and puts the old value back.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~ScopedVariable() {
    if (old_) {
      setenv(name_, old_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

class XenstoreStore::XenstoreTransaction final : public Transaction {
 public:
  XenstoreTransaction(xs_handle* handle, xs_transaction_t id) : handle_(handle), id_(id) {}
  ~XenstoreTransaction() override {
    if (id_ != XBT_NULL) xs_transaction_end(handle_, id_, true);
  }
  Result<std::string> read(const std::string& path) override {
    if (Status status = check_open(); !status) return status.error();
    return read_node(handle_, id_, path);
  }
  Status write(const std::string& path, std::string_view value) override {
    if (Status status = check_open(); !status) return status;
    return write_node(handle_, id_, path, value);
  }
  Status mkdir(const std::string& path) override {
    if (Status status = check_open(); !status) return status;
    return make_node(handle_, id_, path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    if (Status status = check_open(); !status) return status.error();
    return list_node(handle_, id_, path);
  }
  Status remove(const std::string& path) override {
    if (Status status = check_open(); !status) return status;
    return remove_node(handle_, id_, path);
  }
  Status commit() override {
    if (Status status = check_open(); !status) return status;
    if (!xs_transaction_end(handle_, std::exchange(id_, XBT_NULL), false)) {
      return failure("cannot commit a xenstore transaction");
    }
    return {};
  }

 private:
  // XBT_NULL means "outside any transaction" to libxenstore: an ended one must not fall through to
  // that.
  Status check_open() const {
    if (id_ == XBT_NULL) return system_error(EINVAL, "this transaction has ended");
    return {};
  }

  xs_handle* handle_;
  xs_transaction_t id_;
};

Result<std::unique_ptr<XenstoreStore>> XenstoreStore::open(const std::string& socket_path) {
  std::optional<ScopedVariable> variable;
  if (!socket_path.empty()) {
    if (Status status = check_socket(socket_path); !status) return status.error();
    variable.emplace("XENSTORED_PATH", socket_path);
  }
  xs_handle* handle = xs_open(0);
  if (handle == nullptr) {
    return system_error(errno, fmt::format("cannot reach xenstored at {}", xs_daemon_socket()),
                        "start xenspand, or on Xen `systemctl start xenstored`");
  }
  const int fd = xs_fileno(handle);
  if (fd < 0) {
    const int code = errno;
    xs_close(handle);
    return system_error(code, "cannot make the pipe for xenstore watches");
  }
  return std::unique_ptr<XenstoreStore>(new XenstoreStore(handle, fd));
}

XenstoreStore::~XenstoreStore() { xs_close(handle_); }

Result<std::string> XenstoreStore::read(const std::string& path) {
  return read_node(handle_, XBT_NULL, path);
}
Status XenstoreStore::write(const std::string& path, std::string_view value) {
  return write_node(handle_, XBT_NULL, path, value);
}
Status XenstoreStore::mkdir(const std::string& path) { return make_node(handle_, XBT_NULL, path); }
Result<std::vector<std::string>> XenstoreStore::list(const std::string& path) {
  return list_node(handle_, XBT_NULL, path);
}
Status XenstoreStore::remove(const std::string& path) {
  return remove_node(handle_, XBT_NULL, path);
}

Result<std::unique_ptr<Transaction>> XenstoreStore::begin() {
  const xs_transaction_t id = xs_transaction_start(handle_);
  if (id == XBT_NULL) return failure("cannot begin a xenstore transaction");
  return std::unique_ptr<Transaction>(std::make_unique<XenstoreTransaction>(handle_, id));
}

Status XenstoreStore::watch(const std::string& path, const std::string& token,
                            WatchCallback callback) {
  if (!path.starts_with('@')) {
    if (Status status = check_path(path); !status) return status;
  }
  for (const auto& [key, watch] : watches_) {
    if (watch.path == path && watch.token == token) {
      return system_error(EEXIST, fmt::format("cannot watch xenstore {} as '{}'", path, token));
    }
  }
  const std::string key = std::to_string(++last_watch_);
  if (!xs_watch(handle_, path.c_str(), key.c_str())) return failure("watch", path);
  watches_.emplace(key, Watch{path, token, std::move(callback)});
  return {};
}

Status XenstoreStore::unwatch(const std::string& path, const std::string& token) {
  for (auto it = watches_.begin(); it != watches_.end(); ++it) {
    if (it->second.path != path || it->second.token != token) continue;
    const std::string key = it->first;
    watches_.erase(it);
    if (!xs_unwatch(handle_, path.c_str(), key.c_str())) return failure("unwatch", path);
    return {};
  }
  return system_error(ENOENT, fmt::format("xenstore {} is not watched as '{}'", path, token));
}

Status XenstoreStore::process() {
  for (;;) {
    const Allocated<char*> event(xs_check_watch(handle_));
    if (event) {
      deliver(event.get()[XS_WATCH_PATH], event.get()[XS_WATCH_TOKEN]);
    } else if (errno == EAGAIN) {
      return {};
    } else if (errno != EINTR) {
      if (errno == EINVAL) errno = EBADF;  // libxenstore's word for a connection that is gone
      return failure("cannot read xenstore watch events");
    }
  }
}

void XenstoreStore::deliver(const std::string& path, const std::string& key) {
  const auto it = watches_.find(key);
  if (it == watches_.end()) return;  // ended while its event was on the way
  const Watch watch = it->second;    // a copy: the callback may end its own watch
  watch.callback(path, watch.token);
}

}  // namespace xenspan::xenstore
