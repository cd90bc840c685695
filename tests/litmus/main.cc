// litmus [--shape NAME]... [--variant NAME]... [--iterations N] [--one-page | --two-pages] [--burst
// N]
//
// Runs the litmus shapes of shape_table.h over as many threads as the machine has processors (in a
// spanning domain: its vCPUs, on their hosts), prints a line for each shape, variant and layout,
// and ends with status 1 when it saw what x86 forbids, 2 when it was called wrongly.
#include <getopt.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/litmus/run.h"

namespace xenspan::litmus {
namespace {

struct Options {
  std::vector<std::string> shapes, variants;
  std::uint64_t iterations = 100000;
  bool one_page = true, two_pages = true, reasons = false;
  unsigned burst = 8;
};

[[noreturn]] void usage(int status) {
  std::fputs(
      "litmus [--shape NAME]... [--variant plain|fenced|locked]... [--iterations N]\n"
      "       [--one-page | --two-pages] [--burst 1|2|4|8|16|32] [--reasons]\n"
      "Runs x86 litmus shapes over all processors; status 1 when a forbidden outcome was seen.\n"
      "--reasons prints the table of shapes instead.\n",
      status == 0 ? stdout : stderr);
  std::exit(status);
}

std::uint64_t number(const char* text, std::uint64_t most) {
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0' || value == 0 || value > most) {
    std::fprintf(stderr, "litmus: %s is not a number from 1 to %" PRIu64 "\n", text, most);
    usage(2);
  }
  return value;
}

bool listed(const std::vector<std::string>& list, const std::string& name) {
  if (list.empty()) return true;
  for (const std::string& each : list) {
    if (each == name) return true;
  }
  return false;
}

void check_names(const Options& options) {
  for (const std::string& name : options.shapes) {
    if (find_shape(name) != nullptr) continue;
    std::fprintf(stderr, "litmus: no shape %s; there are", name.c_str());
    for (const Shape& shape : shapes()) std::fprintf(stderr, " %s", shape.name);
    std::fputc('\n', stderr);
    std::exit(2);
  }
  for (const std::string& name : options.variants) {
    bool known = false;
    for (const Variant variant : kVariants) known = known || name == name_of(variant);
    if (!known) usage(2);
  }
}

Options read_options(int argc, char** argv) {
  static const option kLong[] = {{"shape", required_argument, nullptr, 's'},
                                 {"variant", required_argument, nullptr, 'v'},
                                 {"iterations", required_argument, nullptr, 'n'},
                                 {"one-page", no_argument, nullptr, '1'},
                                 {"same-page", no_argument, nullptr, '1'},
                                 {"two-pages", no_argument, nullptr, '2'},
                                 {"burst", required_argument, nullptr, 'b'},
                                 {"reasons", no_argument, nullptr, 'r'},
                                 {"help", no_argument, nullptr, 'h'},
                                 {nullptr, 0, nullptr, 0}};
  Options options;
  for (int letter; (letter = getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    switch (letter) {
      case 's': options.shapes.emplace_back(optarg); break;
      case 'v': options.variants.emplace_back(optarg); break;
      case 'n': options.iterations = number(optarg, 100'000'000); break;
      case '1': options.two_pages = false; break;
      case '2': options.one_page = false; break;
      case 'b': options.burst = static_cast<unsigned>(number(optarg, 32)); break;
      case 'r': options.reasons = true; break;
      case 'h': usage(0);
      default: usage(2);
    }
  }
  if (optind != argc || (options.burst & (options.burst - 1)) != 0) usage(2);
  if (!options.one_page && !options.two_pages) options.one_page = options.two_pages = true;
  check_names(options);
  return options;
}

void print_reasons() {
  for (const Shape& shape : shapes()) {
    std::printf("%-5s outcome %s: allowed %s", shape.name, outcome_names(shape).c_str(),
                shape.allowed);
    if (shape.store_buffer[0] != '\0')
      std::printf(", plain also %s by the store buffer", shape.store_buffer);
    std::printf("; %s\n", shape.reason);
  }
}

// Of one shape.
struct Totals {
  std::uint64_t runs = 0, iterations = 0, forbidden = 0;
};

struct Sums {
  std::vector<std::pair<const Shape*, Totals>> shapes;
  std::uint64_t runs = 0, iterations = 0, forbidden = 0;
  std::uint64_t could_buffer = 0, store_buffering = 0;
  double seconds = 0;
};

void add(Sums& sums, const Shape& shape, Variant variant, const Outcomes& outcomes) {
  if (sums.shapes.empty() || sums.shapes.back().first != &shape)
    sums.shapes.emplace_back(&shape, Totals{});
  Totals& totals = sums.shapes.back().second;
  ++totals.runs;
  totals.iterations += outcomes.tally.total();
  totals.forbidden += outcomes.tally.forbidden();
  ++sums.runs;
  sums.iterations += outcomes.tally.total();
  sums.forbidden += outcomes.tally.forbidden();
  sums.seconds += outcomes.seconds;
  if (variant != Variant::kPlain || shape.store_buffer[0] == '\0') return;
  sums.could_buffer += outcomes.tally.total();
  sums.store_buffering += outcomes.tally.store_buffering();
}

void run_and_print(std::size_t index, Variant variant, const Settings& settings, Sums& sums) {
  const Shape& shape = shapes()[index];
  const Outcomes outcomes = run_shape(index, variant, settings);
  std::string vcpus;
  for (const int vcpu : outcomes.vcpus) vcpus += (vcpus.empty() ? "" : ",") + std::to_string(vcpu);
  std::printf("%-4s %-6s %-9s %7" PRIu64 " in %5.2f s, %u threads on vCPUs %s: %s = %s\n",
              shape.name, name_of(variant),
              settings.pages == Pages::kOne ? "one-page" : "two-pages", outcomes.tally.total(),
              outcomes.seconds, outcomes.workers, vcpus.c_str(), outcome_names(shape).c_str(),
              outcomes.tally.text().c_str());
  std::fflush(stdout);
  add(sums, shape, variant, outcomes);
}

// What became of the one relaxation that x86 has.
void print_store_buffering(const Sums& sums) {
  if (sums.could_buffer == 0) return;
  if (sums.store_buffering > 0) {
    std::printf(
        "store buffers: their outcome was seen %" PRIu64 " times in %" PRIu64
        " plain runs of SB and R: threads shared a page through the caches of one machine\n",
        sums.store_buffering, sums.could_buffer);
    return;
  }
  std::printf(
      "store buffers: their outcome (SB 0,0; R 0,2) was not seen in %" PRIu64
      " plain runs of SB and R.\nBetween two hosts it cannot be: a store retires only while its "
      "host alone has the right to the page, and the right is taken away\nwith a TLB shootdown, "
      "which empties the store buffers, before another host gets the page. Two vCPUs of one host "
      "show it.\n",
      sums.could_buffer);
}

int run_all(const Options& options) {
  Sums sums;
  Settings settings;
  settings.iterations = options.iterations;
  settings.burst = options.burst;
  settings.processors = std::max(1u, std::thread::hardware_concurrency());
  for (std::size_t index = 0; index < shapes().size(); ++index) {
    const Shape& shape = shapes()[index];
    if (!listed(options.shapes, shape.name)) continue;
    for (const Variant variant : kVariants) {
      if (!listed(options.variants, name_of(variant))) continue;
      for (const Pages pages : {Pages::kOne, Pages::kTwo}) {
        if (pages == Pages::kOne ? !options.one_page : !options.two_pages) continue;
        // A shape with one variable has nothing to put on another page.
        if (pages == Pages::kTwo && shape.variables == 1 && options.one_page) continue;
        settings.pages = pages;
        run_and_print(index, variant, settings, sums);
      }
    }
  }
  for (const auto& [shape, totals] : sums.shapes) {
    std::printf("total %-4s %" PRIu64 " runs, %" PRIu64 " iterations, %" PRIu64
                " forbidden outcomes\n",
                shape->name, totals.runs, totals.iterations, totals.forbidden);
  }
  print_store_buffering(sums);
  std::printf("litmus: %" PRIu64 " runs, %" PRIu64 " iterations in %.1f s, %" PRIu64
              " forbidden outcomes\n",
              sums.runs, sums.iterations, sums.seconds, sums.forbidden);
  return sums.forbidden == 0 ? 0 : 1;
}

}  // namespace
}  // namespace xenspan::litmus

int main(int argc, char** argv) {
  const auto options = xenspan::litmus::read_options(argc, argv);
  if (options.reasons) {
    xenspan::litmus::print_reasons();
    return 0;
  }
  return xenspan::litmus::run_all(options);
}
