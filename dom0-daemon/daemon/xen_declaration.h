// What an admin declares about a spanning domain under Xen: /etc/xenspan/domains/NAME.json
// (xenspan-domain(5)).
//
// The text is checked whole: every fault is found at once, each one line with the path in the file,
// what is wrong, and the remedy. Threading: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/transport_choice.h"

namespace xenspan::daemon {

inline constexpr std::size_t kMostXenVcpus = 64;

struct XenDeclaration {
  // Which domain: at least one of the two.
  std::string name;
  std::string uuid;
  std::string config;              // the xl file, from which the peers make their slices
  std::vector<std::string> hosts;  // beside the home; in order of mention
  struct Vcpu {
    std::string host;  // "": the home
    int cpu = -1;      // of that host, that it is pinned to; -1: any
  };
  std::vector<Vcpu> vcpus;
  TransportWish transport = TransportWish::kTcp;
  bool encrypt = false;
  unsigned hold_us = 0;  // 0: xenspan's own choice

  // The declared host that is not one of `accepted` gets no vCPU: the home keeps them.
  std::vector<Vcpu> placement(const std::vector<std::string>& accepted) const;
};

// Faults: "/vcpus/1/host: \"c\" is not in /hosts: add it there, or name one that is".
struct XenDeclarationCheck {
  XenDeclaration declaration;  // whole when there is no fault
  std::vector<std::string> faults;
};
XenDeclarationCheck check_xen_declaration(std::string_view text);

// All of a folder: those without fault, and for each other file one line. A folder that is not
// there is empty.
struct XenDeclarations {
  std::vector<XenDeclaration> good;
  std::vector<std::string> faults;  // "FILE: N faults: run `xenspan check FILE`"
};
XenDeclarations read_xen_declarations(const std::string& folder);
// The one for this domain; nullptr: it does not span.
const XenDeclaration* find_xen_declaration(const std::vector<XenDeclaration>& all,
                                           const std::string& name, const std::string& uuid);

}  // namespace xenspan::daemon
