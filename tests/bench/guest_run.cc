#include "tests/bench/guest_run.h"

#include <cstdlib>

#include "tests/bench/process.h"

namespace xenspan::bench {
namespace {

std::string member(const std::string& line, const std::string& key) {
  const std::size_t start = line.find(" " + key + "=");
  if (start == std::string::npos) return {};
  const std::size_t from = start + key.size() + 2;
  return line.substr(from, line.find_first_of(" \n", from) - from);
}

}  // namespace

double Answer::number(const std::string& name) const {
  return std::atof(member(line, name).c_str());
}

Result<Answer> run_guest(const std::vector<std::string>& argv, const std::vector<int>& cores) {
  auto process = Process::start(argv, cores);
  if (!process) return process.error();
  const Process::End end = process->finish();
  if (end.status != 0)
    return Error{0, argv[0] + " ended with status " + std::to_string(end.status)};
  const Answer answer{std::atof(member(end.output, "seconds").c_str()),
                      member(end.output, "checksum"), end.output};
  if (answer.seconds <= 0 || answer.checksum.empty()) {
    return Error{0, argv[0] + " printed '" + end.output.substr(0, 80) + "' instead of its seconds"};
  }
  return answer;
}

}  // namespace xenspan::bench
