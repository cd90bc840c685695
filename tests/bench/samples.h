// Samples and how a result is printed: one JSON object a line. Plain values, one thread.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace xenspan::bench {

class Samples {
 public:
  void add(double value) { values_.push_back(value); }
  void add(const std::vector<double>& values) {
    values_.insert(values_.end(), values.begin(), values.end());
  }
  std::size_t size() const { return values_.size(); }
  double median() const { return quantile(0.5); }
  double p99() const { return quantile(0.99); }
  // The smallest value with at least `part` of all values at or below it.
  double quantile(double part) const;

 private:
  friend Samples ratios(const Samples& above, const Samples& below);
  std::vector<double> values_;
};
// Of samples that were taken in pairs, the first of one with the first of the other: what changes
// the machine's speed for longer than a pair takes is the same on both sides.
Samples ratios(const Samples& above, const Samples& below);

// Further numbers of a result, by name, in the order in which they were first named.
class Figures {
 public:
  Figures() = default;
  Figures(std::initializer_list<std::pair<std::string, double>> figures) : figures_(figures) {}
  double& operator[](std::string_view name);
  auto begin() const { return figures_.begin(); }
  auto end() const { return figures_.end(); }

 private:
  std::vector<std::pair<std::string, double>> figures_;
};

struct Measurement {
  std::string bench, unit;
  Samples measured, baseline;
  double ratio = 0;
  Figures more = {};
  std::vector<std::string> hosts;
};
void print(const Measurement& measurement);

}  // namespace xenspan::bench
