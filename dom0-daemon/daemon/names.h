// The names people give: hosts and domains, and the identities of domains. Both become xenstore
// path elements and directory names, so their alphabet is small. Threading: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace xenspan::daemon {

// 1 to 63 of [A-Za-z0-9_-], first not '-': valid in a xenstore path and as a directory.
bool is_host_name(std::string_view name);
bool is_domain_name(std::string_view name);
bool is_uuid(std::string_view text);  // 8-4-4-4-12 lower-case hex digits
std::string random_uuid();            // version 4
std::string random_hex(std::size_t bytes);
// This machine's node name up to its first dot.
std::string local_host_name();

}  // namespace xenspan::daemon
