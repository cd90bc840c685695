// How a command ends that cannot do what it was asked for: one line on standard error, exit
// status 1.
#pragma once

#include "base/log.h"
#include "base/result.h"

namespace xenspan::cli {

inline int fail(const Error& error) {
  log::error("{}", error.message);
  return 1;
}

}  // namespace xenspan::cli
