// What the store's tests run on: a genuine xenstored of their own in a temporary directory, and the
// in-process store. Used by gtest's thread; a fixture owns its store and its xenstored.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "xenstore-schema/memory_store.h"
#include "xenstore-schema/xenstore_store.h"
#include "xenstore-schema/xenstored_process.h"

namespace xenspan::xenstore {

// Fails the test with the sentence when a Status or Result is an error.
#define ASSERT_OK(expression)                               \
  do {                                                      \
    const auto& asserted = (expression);                    \
    ASSERT_TRUE(asserted.ok()) << asserted.error().message; \
  } while (0)
#define EXPECT_OK(expression)                               \
  do {                                                      \
    const auto& expected = (expression);                    \
    EXPECT_TRUE(expected.ok()) << expected.error().message; \
  } while (0)

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/xenspan-test-XXXXXX";
    if (mkdtemp(name) != nullptr) path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Two programs' views of one store.
class RealBackend {
 public:
  void open() {
    auto process = XenstoredProcess::start(
        {.run_dir = directory_.path() + "/xenstored", .binary = {}, .library = {}});
    ASSERT_OK(process);
    process_ = std::move(*process);
    auto first = XenstoreStore::open(process_->socket_path());
    ASSERT_OK(first);
    first_ = std::move(*first);
    auto second = XenstoreStore::open(process_->socket_path());
    ASSERT_OK(second);
    second_ = std::move(*second);
  }
  Store& store() { return *first_; }
  Store& other() { return *second_; }
  const std::string& socket_path() const { return process_->socket_path(); }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<XenstoredProcess> process_;
  std::unique_ptr<XenstoreStore> first_;
  std::unique_ptr<XenstoreStore> second_;
};

class MemoryBackend {
 public:
  void open() {}
  Store& store() { return store_; }
  Store& other() { return store_; }

 private:
  MemoryStore store_;
};

// A test on either. Each test has a fresh store.
template <typename Backend>
class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override { backend_.open(); }
  Store& store() { return backend_.store(); }
  Store& other() { return backend_.other(); }

  // Delivers watch events until done() holds. The limit is what a hung test may cost, not what is
  // measured.
  template <typename Done>
  bool process_until(Done done) {
    constexpr int kGiveUpMs = 20000;
    while (!done()) {
      pollfd wait{store().fd(), POLLIN, 0};
      if (poll(&wait, 1, kGiveUpMs) != 1) return false;
      if (!store().process()) return false;
    }
    return true;
  }

  Backend backend_;
};

using Backends = ::testing::Types<RealBackend, MemoryBackend>;

}  // namespace xenspan::xenstore
