// Owners for what libibverbs hands out; each frees its object when it goes. An object must go
// before what it was made from: declare in the order of creation. Internal to transport/verbs.
#pragma once

#include <infiniband/verbs.h>

#include <memory>

namespace xenspan::dsm::verbs {

struct Release {
  // A failure to free cannot be acted on: the process ends or the kernel frees it with the context.
  void operator()(ibv_context* it) const { (void)ibv_close_device(it); }
  void operator()(ibv_pd* it) const { (void)ibv_dealloc_pd(it); }
  void operator()(ibv_mr* it) const { (void)ibv_dereg_mr(it); }
  void operator()(ibv_comp_channel* it) const { (void)ibv_destroy_comp_channel(it); }
  void operator()(ibv_cq* it) const { (void)ibv_destroy_cq(it); }
  void operator()(ibv_qp* it) const { (void)ibv_destroy_qp(it); }
};

template <typename T>
using Handle = std::unique_ptr<T, Release>;

}  // namespace xenspan::dsm::verbs
