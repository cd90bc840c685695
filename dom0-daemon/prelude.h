// What most of the daemon's sources include and the compiler takes longest to read, compiled once
// (prelude.h.gch). Each source still includes what it uses: a compiler that cannot use the compiled
// one reads this text, and nothing depends on it. No guard: the compiler warns of one in what it
// compiles alone.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>
