// Whether nothing is under way between the slices of a domain: from what each says that it has sent
// and received (`traffic` of slice/control.md).
//
// A pure function.
#pragma once

#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

// `traffic` by index: {`idle`, `sent` [number per host], `received` [number per host]}. What is
// malformed is not quiet.
bool is_quiet(const Json& traffic);

}  // namespace xenspan::daemon
