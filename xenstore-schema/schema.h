// The schema as data: each node's path, type, writer and reader, in the order of
// xenspan-xenstore(5).
//
// Tests hold the records and the man page against it; `xenspan` may print it. Constant data: any
// thread.
#pragma once

#include <span>
#include <string_view>

namespace xenspan::xenstore {

struct SchemaNode {
  // With <name> and <host> for host names, <uuid> for a domain, <n> for a vCPU's number.
  std::string_view path;
  std::string_view type;
  std::string_view writer;
  std::string_view reader;
};

std::span<const SchemaNode> schema();

// The row for a real path, or nullptr when the schema has no such node.
const SchemaNode* find_in_schema(std::string_view path);

}  // namespace xenspan::xenstore
