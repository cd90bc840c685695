#include "xenstore-schema/tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "xenstore-schema/paths.h"

namespace xenspan::xenstore {
namespace {

// Bounds what a peer's list can put into a store. A domain of 1024 vCPUs on 64 hosts has about 4000
// nodes.
constexpr size_t kMaxNodes = 65536;

bool is_request(std::string_view relative) {
  const size_t slash = relative.rfind('/');
  return (slash == std::string_view::npos ? relative : relative.substr(slash + 1)) ==
         node::kRequest;
}

std::string absolute(const std::string& prefix, const std::string& relative) {
  return relative.empty() ? prefix : prefix + '/' + relative;
}

Status collect(Nodes& nodes, const std::string& prefix, const std::string& relative, Tree& tree) {
  const std::string path = absolute(prefix, relative);
  auto value = nodes.find(path);
  if (!value) return value.error();
  if (!*value) return {};
  tree.emplace_back(relative, std::move(**value));
  const auto names = nodes.list(path);
  if (!names) return names.error();
  for (const std::string& name : *names) {
    const std::string below = relative.empty() ? name : relative + '/' + name;
    if (is_request(below)) continue;
    if (Status status = collect(nodes, prefix, below, tree); !status) return status;
  }
  return {};
}

Status check_tree(const std::string& prefix, const Tree& tree) {
  if (tree.size() > kMaxNodes) {
    return Error{E2BIG, fmt::format("a list of {} nodes for xenstore {} is refused: at most {}",
                                    tree.size(), prefix, kMaxNodes)};
  }
  for (const auto& [relative, value] : tree) {
    // Joining with the prefix leaves only harmless paths: xenstore knows no "..", and an empty part
    // is refused.
    if (Status status = check_node(absolute(prefix, relative), value); !status) return status;
  }
  return {};
}

Status write_changed(Nodes& nodes, const std::string& path, const std::string& value) {
  const auto old = nodes.find(path);
  if (!old) return old.error();
  if (*old && **old == value) return {};
  return nodes.write(path, value);
}

Status write_all(Nodes& nodes, const std::string& prefix, const Tree& tree) {
  for (const auto& [relative, value] : tree) {
    if (is_request(relative)) continue;
    if (Status status = write_changed(nodes, absolute(prefix, relative), value); !status)
      return status;
  }
  return {};
}

// Every relative path that must stay: those of the list and the nodes above them.
std::set<std::string> kept_paths(const Tree& tree) {
  std::set<std::string> kept{""};
  for (const auto& [relative, value] : tree) {
    for (std::string path = relative; kept.insert(path).second;) {
      const size_t slash = path.rfind('/');
      path = slash == std::string::npos ? "" : path.substr(0, slash);
    }
  }
  return kept;
}

}  // namespace

Result<Tree> read_tree(Store& store, const std::string& prefix) {
  Tree tree;
  const Status status = store.atomically([&](Nodes& nodes) {
    tree.clear();
    return collect(nodes, prefix, "", tree);
  });
  if (!status) return status.error();
  return tree;
}

Status apply_tree(Store& store, const std::string& prefix, const Tree& changes) {
  if (Status status = check_tree(prefix, changes); !status) return status;
  return store.atomically([&](Nodes& nodes) { return write_all(nodes, prefix, changes); });
}

Status replace_tree(Store& store, const std::string& prefix, const Tree& wanted) {
  if (Status status = check_tree(prefix, wanted); !status) return status;
  if (wanted.empty()) return store.remove(prefix);
  const std::set<std::string> kept = kept_paths(wanted);
  return store.atomically([&](Nodes& nodes) -> Status {
    Tree present;
    if (Status status = collect(nodes, prefix, "", present); !status) return status;
    for (const auto& [relative, value] : present) {
      if (kept.contains(relative)) continue;
      if (Status status = nodes.remove(absolute(prefix, relative)); !status) return status;
    }
    return write_all(nodes, prefix, wanted);
  });
}

}  // namespace xenspan::xenstore
