// `xenspan check FILE`: every fault of a declaration of a domain under Xen, one line each.
#pragma once

#include <string>

namespace xenspan::cli {

// The exit status: 0 no fault, 1 faults, 2 no file.
int check_declaration(const std::string& file);

}  // namespace xenspan::cli
