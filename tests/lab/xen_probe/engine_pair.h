// Two engines of this process that keep the memory of two domains coherent, over TCP.
//
// Order: join, start both over their backends, stop. Threading: the calls from one thread, the
// engines as they say. Ownership: owns transports, engines and their service threads; the backends
// outlive it.
#pragma once

#include <memory>
#include <thread>

#include "base/result.h"
#include "dsm-rdma/engine.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"

namespace xenspan::lab {

class EnginePair {
 public:
  static constexpr unsigned kEngines = 2;

  EnginePair() = default;
  ~EnginePair();
  Status join(dsm::Gfn pages, unsigned hold_us);
  Status start(unsigned self, dsm::PageBackend& backend);
  dsm::Engine& operator[](unsigned self) const { return *parts_[self].engine; }
  void stop();

 private:
  struct Part {
    std::unique_ptr<dsm::tcp::Acceptor> acceptor;
    std::unique_ptr<dsm::Transport> transport;
    std::unique_ptr<dsm::Engine> engine;
    std::thread server;
  };
  dsm::Gfn pages_ = 0;
  unsigned hold_us_ = 0;
  Part parts_[kEngines];
};

}  // namespace xenspan::lab
