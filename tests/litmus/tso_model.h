// The x86-TSO abstract machine, small: for a shape and a variant, every outcome it can end with.
//
// As in section 3 of x86-TSO (CACM 2010): each thread has a FIFO store buffer and reads its own
// newest store first; mfence and locked instructions wait until the buffer is empty. Explores all
// interleavings. A pure function.
#pragma once

#include <set>

#include "tests/litmus/shapes.h"

namespace xenspan::litmus {

// `sequentially_consistent`: the same with no buffers at all.
std::set<Outcome> model_outcomes(const Shape& shape, Variant variant,
                                 bool sequentially_consistent = false);

}  // namespace xenspan::litmus
