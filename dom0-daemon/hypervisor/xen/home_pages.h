// Pages that belong to the home, for Xen and Dom0 write to them without asking: as text for the
// other slices, and whether a page is one of them.
//
// Pure. What home_pages_from() is given comes from another host: a line that is none is passed
// over. Threading: plain functions. Ownership: values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dom0-daemon/hypervisor/xen/types.h"

namespace xenspan::hypervisor::xen {

// A line a page: its gfn, hexadecimal, a space, whose it is.
std::string to_text(const std::vector<HomePage>& pages);
// In order of gfns.
std::vector<HomePage> home_pages_from(std::string_view text);
// `pages` in order of gfns. nullptr: none of them.
const HomePage* find_home_page(const std::vector<HomePage>& pages, dsm::Gfn gfn);

}  // namespace xenspan::hypervisor::xen
