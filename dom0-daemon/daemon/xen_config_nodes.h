// A Xen domain's declaration as nodes of xenstore, below /tool/xenspan/config/UUID, for who would
// rather write nodes than a file of /etc/xenspan/domains (xenspan-xenstore(5)).
//
// Threading: the loop's thread. Ownership: `store` is borrowed.
#pragma once

#include <optional>
#include <string>

#include "dom0-daemon/daemon/xen_declaration.h"
#include "xenstore-schema/store.h"

namespace xenspan::daemon {

// Checked as a file is; the faults name members of the file. `vcpus`: of the domain; only those
// that leave have nodes. Nothing: there are no such nodes.
std::optional<XenDeclarationCheck> read_xen_config_nodes(xenstore::Nodes& store,
                                                         const std::string& uuid, unsigned vcpus);
// Beside the nodes, for who wrote them. "": there is none.
void tell_xen_config_error(xenstore::Nodes& store, const std::string& uuid,
                           const std::string& error);

}  // namespace xenspan::daemon
