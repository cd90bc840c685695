// Subtrees as plain lists: how the home's story of a domain gets into other hosts' stores.
//
// The home reads a domain with read_tree, sends the list, and each peer applies it under the same
// prefix in its own store. Requests are commands to the daemon of one store, not part of the story:
// nodes named "request" are neither read nor applied nor removed. A list comes from a peer and is
// checked: it cannot reach outside the prefix. Called in the thread that owns the store.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "xenstore-schema/store.h"

namespace xenspan::xenstore {

// Path relative to the prefix ("state", "member/b/vcpus"; "" is the prefix itself), and value.
// Sorted, parents first.
using Tree = std::vector<std::pair<std::string, std::string>>;

// The nodes at and below prefix as of one moment; an empty list when there are none.
Result<Tree> read_tree(Store& store, const std::string& prefix);

// Writes these nodes, in one transaction. Nodes that already have the value are left alone, so that
// their watches do not fire.
Status apply_tree(Store& store, const std::string& prefix, const Tree& changes);

// Makes the subtree be this list, in one transaction: writes what differs, removes what is not in
// the list. An empty list removes the prefix.
Status replace_tree(Store& store, const std::string& prefix, const Tree& wanted);

}  // namespace xenspan::xenstore
