// The cluster key: 32 random bytes shared by all hosts of a cluster, from which TLS authenticates
// every connection.
//
// The file has a header line and the key in hex, mode 0600, owned by root. `xenspan cluster-key`
// makes it; the admin copies it to each host. Threading: plain values, blocking file access.
#pragma once

#include <array>
#include <string>

#include "base/result.h"

namespace xenspan::daemon {

struct ClusterKey {
  std::array<unsigned char, 32> bytes{};
  // Says which key this is without giving it away: 16 hex digits of a hash. Sent in clear as the
  // TLS PSK identity.
  std::string id() const;
};

// Makes a new key file. Refuses to overwrite one.
Status make_cluster_key(const std::string& path);
Result<ClusterKey> read_cluster_key(const std::string& path);

}  // namespace xenspan::daemon
