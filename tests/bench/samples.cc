#include "tests/bench/samples.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "config.h"

namespace xenspan::bench {
namespace {

// Four significant digits: more would only be noise.
double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const double scale = std::pow(10.0, 3 - std::floor(std::log10(std::fabs(value))));
  return std::round(value * scale) / scale;
}

// What a result was measured on.
nlohmann::ordered_json machine(const std::vector<std::string>& hosts) {
  utsname name{};
  ::uname(&name);
  return {{"cpus", ::sysconf(_SC_NPROCESSORS_ONLN)},
          {"kernel", name.release},
          {"hosts", hosts},
          {"version", PACKAGE_VERSION}};
}

}  // namespace

Samples ratios(const Samples& above, const Samples& below) {
  Samples result;
  for (std::size_t i = 0; i < std::min(above.size(), below.size()); ++i)
    result.add(above.values_[i] / below.values_[i]);
  return result;
}

double Samples::quantile(double part) const {
  if (values_.empty()) return 0;
  std::vector<double> sorted = values_;
  const double rank = std::ceil(part * static_cast<double>(sorted.size()));
  const auto index = static_cast<std::ptrdiff_t>(std::max(rank, 1.0)) - 1;
  std::nth_element(sorted.begin(), sorted.begin() + index, sorted.end());
  return sorted[static_cast<std::size_t>(index)];
}

double& Figures::operator[](std::string_view name) {
  for (auto& [known, value] : figures_)
    if (known == name) return value;
  return figures_.emplace_back(name, 0).second;
}

void print(const Measurement& m) {
  nlohmann::ordered_json line = {{"bench", m.bench},
                                 {"unit", m.unit},
                                 {"median", rounded(m.measured.median())},
                                 {"p99", rounded(m.measured.p99())},
                                 {"baseline", rounded(m.baseline.median())},
                                 {"ratio", rounded(m.ratio)},
                                 {"n", m.measured.size()}};
  for (const auto& [name, value] : m.more) line[name] = rounded(value);
  line["on"] = machine(m.hosts);
  std::puts(line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace xenspan::bench
