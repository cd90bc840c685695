// The open files a program started from here would inherit: what `run` hands to the domain.
// Call inherited_files() first thing in main, before anything else opens a file.
#pragma once

#include <vector>

namespace xenspan::cli {

// Numbers of all descriptors without close-on-exec, ascending.
std::vector<int> inherited_files();

}  // namespace xenspan::cli
