// Keeps the guest's descriptor numbers free: the slice's own descriptors all lie at
// kGuestDescriptors and above.
//
// The guest at the home uses the process's real descriptors with their real numbers, so that
// "lowest free number" and dup2 behave as ever. Before anything is opened, occupy() fills the
// guest's numbers; release() empties them and puts the invoking user's descriptors where the user
// had them. Threading: main thread, before guest threads.
#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace xenspan::slice {

inline constexpr int kGuestDescriptors = 4096;  // what the guest sees as RLIMIT_NOFILE

// Moves *kept out of the way, raises RLIMIT_NOFILE, fills 0 .. kGuestDescriptors-1. Standard error
// moves to the log's descriptor. `kept` gets its new number.
Status occupy_guest_descriptors(UniqueFd& kept);
// numbers[i] is where given[i] belongs.
Status release_guest_descriptors(const std::vector<int>& numbers, std::vector<UniqueFd> given);

}  // namespace xenspan::slice
