// Domain files: xenspan.cfg(5), the syntax of xl.cfg(5) for the keys that a user-mode domain has.
//
// NAME = VALUE lines (or separated by ';'), values are strings in quotes, numbers, or lists in
// brackets that may span lines; '#' begins a comment. Threading: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/types.h"

namespace xenspan::cli {

struct DomainFile {
  std::string name;
  std::uint64_t memory = 0;  // bytes; the file says MiB
  int vcpus = 0;
  std::vector<std::string> hosts;
  std::vector<std::string> command;
  std::vector<std::string> environment;
  unsigned prefetch = dsm::kMostPrefetch;
  std::vector<std::string> without;  // features (dsm-rdma/features.h)
  std::string directory;
  std::string transport;  // "tcp", "verbs", "auto"; "": not given
  std::string policy;     // "spread", "pack", "load", "affinity"; "": not given
  std::string input;      // "stdin"
  std::string output;     // "stdout"
  std::string errors;     // "stderr"
};

// `file` is the name for errors: "FILE:LINE: what and remedy".
Result<DomainFile> parse_domain_file(std::string_view text, const std::string& file);

}  // namespace xenspan::cli
