#include "tests/bench/iperf.h"

#include <nlohmann/json.hpp>

#include "tests/bench/process.h"

namespace xenspan::bench {
namespace {

constexpr const char* kRemedy = "install what tests/install-packages names";

std::vector<std::string> in(const BedHost& host, std::vector<std::string> line) {
  line.insert(line.begin(), {"nsenter", "--net=/run/netns/" + host.netns});
  return line;
}

}  // namespace

Result<double> iperf_rate(const BedHost& receiver, const BedHost& sender, unsigned mib) {
  // The server says when it listens, and ends after one client.
  auto server =
      Process::start(in(receiver, {"iperf3", "-s", "-1", "--forceflush"}), {receiver.core});
  if (!server) return server.error();
  for (std::string line; line.find("listening") == std::string::npos;) {
    auto next = server->read_line();
    if (!next) return Error{0, "iperf3 does not start: " + next.error().message + ": " + kRemedy};
    line = *next;
  }
  auto client = Process::start(
      in(sender, {"iperf3", "-J", "-n", std::to_string(mib) + "M", "-c", receiver.address}),
      {sender.core});
  if (!client) return client.error();
  const Process::End end = client->finish();
  (void)server->finish();
  const auto report = nlohmann::json::parse(end.output, nullptr, false);
  const nlohmann::json::json_pointer where("/end/sum_received/bits_per_second");
  if (end.status != 0 || !report.is_object() || !report.contains(where))
    return Error{0, std::string("iperf3 has not measured: ") + kRemedy};
  return report[where].get<double>() / 8e6;
}

}  // namespace xenspan::bench
