// Samples and how a result is printed: one JSON object a line. Plain values, one thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
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
  std::vector<double> values_;
};

// What a result was measured on.
nlohmann::ordered_json machine(const std::vector<std::string>& hosts);

struct Measurement {
  std::string bench, unit;
  Samples measured, baseline;
  double ratio = 0;
  nlohmann::ordered_json more = nlohmann::ordered_json::object();  // further numbers
  std::vector<std::string> hosts;
};
void print(const Measurement& measurement);

}  // namespace xenspan::bench
