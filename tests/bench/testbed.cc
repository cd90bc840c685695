#include "tests/bench/testbed.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "tests/bench/process.h"

namespace xenspan::bench {
namespace {

// Runs the command to its end; its output, or what failed.
Result<std::string> output_of(const std::vector<std::string>& argv) {
  auto process = Process::start(argv);
  if (!process) return process.error();
  Process::End end = process->finish();
  if (end.status == 0) return std::move(end.output);
  std::string line;
  for (const std::string& word : argv) line += (line.empty() ? "" : " ") + word;
  return Error{0, "`" + line + "` ended with status " + std::to_string(end.status)};
}

Result<std::vector<BedHost>> hosts_of(const std::string& json, const std::string& prefix) {
  const auto list = nlohmann::json::parse(json, nullptr, false);
  std::vector<BedHost> hosts;
  for (const auto& host : list) {
    if (!host.is_object() || !host.contains("cores") || host["cores"].empty()) continue;
    const std::string name = host.value("name", "");
    hosts.push_back({name, prefix + "-" + name, host.value("address", ""), host["cores"][0]});
  }
  return hosts;
}

}  // namespace

Result<Testbed> Testbed::up(const std::string& xenspan, const std::string& prefix, unsigned hosts,
                            const std::vector<std::string>& options) {
  // A killed run may have left its bed; the destructor takes down what a failed attempt leaves.
  (void)output_of({xenspan, "testbed", "down", "--prefix", prefix});
  Testbed bed(xenspan, prefix);
  std::vector<std::string> line = {xenspan,    "testbed", "up", std::to_string(hosts),
                                   "--prefix", prefix};
  line.insert(line.end(), options.begin(), options.end());
  const auto made = output_of(line);
  if (!made) return made.error();
  const auto json = output_of({xenspan, "--socket", bed.socket(), "hosts", "--json"});
  if (!json) return json.error();
  auto found = hosts_of(*json, prefix);
  if (!found) return found.error();
  if (found->size() != hosts) {
    return Error{0, "the test bed has " + std::to_string(found->size()) + " hosts, not " +
                        std::to_string(hosts)};
  }
  bed.hosts_ = std::move(*found);
  return bed;
}

Testbed::Testbed(std::string xenspan, std::string prefix)
    : xenspan_(std::move(xenspan)), prefix_(std::move(prefix)) {}

Testbed::Testbed(Testbed&& other) noexcept
    : xenspan_(std::move(other.xenspan_)),
      prefix_(std::exchange(other.prefix_, "")),
      hosts_(std::move(other.hosts_)) {}

Testbed::~Testbed() {
  if (!prefix_.empty()) (void)output_of({xenspan_, "testbed", "down", "--prefix", prefix_});
}

std::string Testbed::socket() const { return "/run/xenspan/testbed-" + prefix_ + "/a/control"; }

std::vector<std::string> Testbed::names(unsigned count) const {
  std::vector<std::string> names;
  for (unsigned i = 0; i < count; i++) names.push_back(hosts_[i].name);
  return names;
}

std::vector<std::string> Testbed::run(unsigned count, const std::vector<std::string>& guest,
                                      const std::vector<std::string>& options) const {
  std::string list;
  for (const std::string& name : names(count)) list += (list.empty() ? "" : ",") + name;
  std::vector<std::string> line = {
      xenspan_, "--socket", socket(), "run", "--vcpus", std::to_string(count), "--hosts", list};
  line.insert(line.end(), options.begin(), options.end());
  line.push_back("--");
  line.insert(line.end(), guest.begin(), guest.end());
  return line;
}

}  // namespace xenspan::bench
