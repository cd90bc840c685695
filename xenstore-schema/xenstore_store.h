// XenstoreStore: the store of a running xenstored, through libxenstore.
//
// One thread: that of the event loop. Requests are answered by xenstored at once (tens of
// microseconds on a socket); a call blocks until then. libxenstore starts a reader thread of its
// own with the first watch. The caller owns the store; a lost xenstored shows as EBADF or EPIPE
// from the next call, and xenstored's nodes are lost with it.
#pragma once

#include <map>

#include "xenstore-schema/store.h"

struct xs_handle;

namespace xenspan::xenstore {

class XenstoreStore final : public Store {
 public:
  // Connects to the xenstored that listens at socket_path, or with "" to the system's
  // (XENSTORED_PATH, then /run/xenstored/socket, then the kernel's xenbus). libxenstore takes the
  // path from the environment only, so this sets XENSTORED_PATH for the length of the call: call it
  // before other threads start that read the environment.
  static Result<std::unique_ptr<XenstoreStore>> open(const std::string& socket_path);
  ~XenstoreStore() override;
  XenstoreStore(const XenstoreStore&) = delete;
  XenstoreStore& operator=(const XenstoreStore&) = delete;

  Result<std::string> read(const std::string& path) override;
  Status write(const std::string& path, std::string_view value) override;
  Status mkdir(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  Status remove(const std::string& path) override;
  Result<std::unique_ptr<Transaction>> begin() override;
  Status watch(const std::string& path, const std::string& token, WatchCallback callback) override;
  Status unwatch(const std::string& path, const std::string& token) override;
  int fd() override { return fd_; }
  Status process() override;

 private:
  class XenstoreTransaction;
  struct Watch {
    std::string path;
    std::string token;
    WatchCallback callback;
  };

  XenstoreStore(xs_handle* handle, int fd) : handle_(handle), fd_(fd) {}
  void deliver(const std::string& path, const std::string& key);

  xs_handle* handle_;
  int fd_;
  // By the token that xenstored sees: a number never used twice, so that a late event of an ended
  // watch meets nobody.
  std::map<std::string, Watch> watches_;
  uint64_t last_watch_ = 0;
};

}  // namespace xenspan::xenstore
