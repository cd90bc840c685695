// The picture: four panels, hosts on a logarithmic axis.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "dsm-rdma/scale/report.h"

namespace xenspan::dsm::scale {
namespace {

constexpr double kWidth = 380, kHeight = 300, kLeft = 56, kTop = 48, kGap = 76;
const char* const kColours[] = {"#1b6ca8", "#c8553d", "#2f8f5b", "#8a5fb0", "#b08900"};

struct Point {
  unsigned hosts;
  double value;
};
using Lines = std::map<Pattern, std::vector<Point>>;

// 1, 2 or 5 times a power of ten: a step that divides `most` into about five.
double step_for(double most) {
  const double rough = most / 5, power = std::pow(10, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power) return factor * power;
  }
  return 10 * power;
}

// One drawing: a line a pattern over hosts. Values are on a logarithmic axis too, from 1, or on a
// plain one, from 0.
class Panel {
 public:
  Panel(double left, double top, const char* title, const Lines& lines, double at_least,
        bool logarithmic)
      : left_(left), top_(top), title_(title), lines_(lines), logarithmic_(logarithmic) {
    double most = at_least;
    for (const auto& [pattern, points] : lines) {
      for (const Point& point : points) {
        most = std::max(most, point.value);
        least_hosts_ = std::min(least_hosts_, point.hosts);
        most_hosts_ = std::max(most_hosts_, point.hosts);
      }
    }
    if (logarithmic) {
      most_ = std::pow(10, std::ceil(std::log10(most)));
    } else {
      step_ = step_for(most);
      most_ = std::ceil(most / step_) * step_;
    }
  }
  std::string draw() const {
    std::string svg = fmt::format("<text x=\"{}\" y=\"{}\" class=\"title\">{}</text>\n", left_,
                                  top_ - 16, title_);
    if (logarithmic_) {
      for (double value = 1; value <= most_ * 1.001; value *= 10) svg += draw_grid(value);
    } else {
      for (double value = 0; value <= most_ * 1.001; value += step_) svg += draw_grid(value);
    }
    for (unsigned hosts = least_hosts_; hosts <= most_hosts_; hosts *= 2) {
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                         x_of(hosts), top_ + kHeight + 18, hosts);
    }
    for (const auto& [pattern, points] : lines_) svg += draw_line(pattern, points);
    return svg;
  }

 private:
  std::string draw_grid(double value) const {
    return fmt::format(
        "<line x1=\"{0}\" y1=\"{1:.1f}\" x2=\"{2}\" y2=\"{1:.1f}\" class=\"grid\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:g}</text>\n",
        left_, y_of(value), left_ + kWidth, left_ - 6, y_of(value) + 4, value);
  }
  std::string draw_line(Pattern pattern, const std::vector<Point>& points) const {
    const char* colour = kColours[static_cast<std::size_t>(pattern)];
    std::string way, dots;
    for (const Point& point : points) {
      const double x = x_of(point.hosts), y = y_of(point.value);
      way += fmt::format("{:.1f},{:.1f} ", x, y);
      dots +=
          fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>", x, y, colour);
    }
    return fmt::format("<polyline points=\"{}\" stroke=\"{}\"/>{}\n", way, colour, dots);
  }
  double x_of(unsigned hosts) const {
    const double span = std::log2(most_hosts_) - std::log2(least_hosts_);
    return span == 0 ? left_ + kWidth / 2
                     : left_ + kWidth * (std::log2(hosts) - std::log2(least_hosts_)) / span;
  }
  double y_of(double value) const {
    const double share =
        logarithmic_ ? std::log10(std::max(value, 1.0)) / std::log10(most_) : value / most_;
    return top_ + kHeight * (1 - share);
  }

  double left_, top_;
  const char* title_;
  const Lines& lines_;
  const bool logarithmic_;
  unsigned least_hosts_ = ~0u, most_hosts_ = 1;
  double step_ = 1, most_ = 1;
};

template <typename Value>
Lines lines_of(const std::vector<Result>& results, Value value) {
  Lines lines;
  for (const Result& result : results) {
    lines[result.options.pattern].push_back({result.options.hosts, value(result)});
  }
  for (auto& [pattern, points] : lines) {
    std::sort(points.begin(), points.end(),
              [](const Point& a, const Point& b) { return a.hosts < b.hosts; });
  }
  return lines;
}

}  // namespace

std::string plot_of(const std::vector<Result>& results) {
  const Lines messages =
      lines_of(results, [](const Result& one) { return one.figures.all.messages; });
  const Lines writes =
      lines_of(results, [](const Result& one) { return one.figures.writes.messages; });
  const Lines trips =
      lines_of(results, [](const Result& one) { return one.figures.all.trips_median; });
  const Lines memory = lines_of(results, [](const Result& one) { return one.memory.page(); });
  const double width = kLeft + 2 * kWidth + kGap + 20, height = 2 * (kTop + kHeight) + 90;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\">\n"
      "<style>text{{font:12px sans-serif;fill:#333}}.title{{font-size:14px;font-weight:bold}}"
      ".grid{{stroke:#ddd}}polyline{{fill:none;stroke-width:2}}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  const double second_left = kLeft + kWidth + kGap, second_top = 2 * kTop + kHeight + 24;
  svg += Panel(kLeft, kTop, "Messages a fault (mean)", messages, 5, false).draw();
  svg += Panel(second_left, kTop, "Messages a write fault (mean)", writes, 10, true).draw();
  svg += Panel(kLeft, second_top, "Latency of a fault in round trips (median)", trips, 10, true)
             .draw();
  svg +=
      Panel(second_left, second_top, "Directory, bytes a page and host", memory, 24, false).draw();
  double left = kLeft;
  for (const auto& [pattern, points] : messages) {
    svg += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}"
        "</text>\n",
        left, height - 22, kColours[static_cast<std::size_t>(pattern)], left + 20, height - 16,
        name_of(pattern));
    left += 130;
  }
  return svg + "</svg>\n";
}

}  // namespace xenspan::dsm::scale
