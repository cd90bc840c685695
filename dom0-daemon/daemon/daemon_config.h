// What an administrator can set for xenspand: xenspand.conf (one `key = value` a line, `#`
// comments) and the options of the command line, which have the same names and win.
// man/xenspand.conf.5 documents each key.
//
// Read once at start. An error names file, line, key and remedy. Threading: plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "dom0-daemon/daemon/transport_choice.h"

namespace xenspan::daemon {

inline constexpr std::uint16_t kDefaultPort = 8117;
inline constexpr const char* kRunRoot = "/run/xenspan";

struct PeerAddress {
  std::string name;
  std::string address;  // numeric, without brackets
  std::uint16_t port = kDefaultPort;
};

struct Config {
  std::string name;                   // default: the machine's short host name
  std::string address = "127.0.0.1";  // where peers reach this host
  std::uint16_t port = kDefaultPort;
  std::vector<int> cpus;          // cores for vCPUs; default: all this process may use
  std::uint64_t memory = 0;       // bytes for domains; default: all of the machine's memory
  std::string rundir = kRunRoot;  // the daemon's own folder is rundir/name
  std::string key;                // cluster key file; needed once there is a peer
  bool encrypt = false;           // encrypt guest memory on the wire, not only authenticate it
  bool frame_blocks = true;       // let the kernel give guests' memory by the block
  // For domains whose home is here when they do not say otherwise.
  TransportWish transport = TransportWish::kAuto;
  RdmaWish rdma;        // this host's device for slices
  std::string domains;  // folder of what is declared about domains under Xen
  std::string slice;    // path of xenspan-slice
  std::string socket;   // control socket; default: rundir/name/control
  std::vector<PeerAddress> peers;
  std::chrono::milliseconds lost_after{3000};     // a silent peer is lost after this
  std::chrono::milliseconds start_within{30000};  // a domain whose slices are not ready fails
  log::Level log_level = log::Level::kInfo;

  std::string own_dir() const { return rundir + "/" + name; }
};

struct ConfigKey {
  const char* name;
  const char* value;  // what a value looks like, for --help
  const char* help;
};
// Every key, in the order of the manual.
const std::vector<ConfigKey>& config_keys();

// Sets one key from its text. The error names the key.
Status set_config(Config& config, std::string_view key, std::string_view value);
// Reads a whole file's text; `file` is its name for errors.
Status read_config(Config& config, std::string_view text, const std::string& file);
// Fills in what was not given and checks what only the whole can tell.
Status complete_config(Config& config);

// The cores this process may use, ascending: a container or taskset leaves it fewer than the
// machine has. Empty when the kernel does not say.
std::vector<int> usable_cpus();
// "0-3,6" into numbers, ascending order of mention, no repeats.
Result<std::vector<int>> parse_cpu_list(std::string_view text);
// "b=10.0.0.2:8117", "b=[fe80::1]:8117"; the port may be left out.
Result<PeerAddress> parse_peer(std::string_view text);

}  // namespace xenspan::daemon
