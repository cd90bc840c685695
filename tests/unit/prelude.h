// What most of the unit tests include and the compiler takes longest to read, compiled once
// (prelude.h.gch), as dom0-daemon/prelude.h.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <random>

#include "dom0-daemon/prelude.h"
