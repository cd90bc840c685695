// Testbed: hosts in network namespaces for one benchmark run, brought up and taken down by `xenspan
// testbed`.
//
// For the benchmark program's one thread. Owns the hosts: the destructor takes them down.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace xenspan::bench {

struct BedHost {
  std::string name, netns, address;
  int core = 0;  // where its first vCPU runs
};

class Testbed {
 public:
  // `xenspan` is the command's path; `options`: further ones of `testbed up`.
  static Result<Testbed> up(const std::string& xenspan, const std::string& prefix, unsigned hosts,
                            const std::vector<std::string>& options = {});
  Testbed(Testbed&& other) noexcept;
  Testbed& operator=(Testbed&&) = delete;
  ~Testbed();

  const std::vector<BedHost>& hosts() const { return hosts_; }
  // The command line that runs `guest` with one vCPU on each of the first `count` hosts.
  // `options`: further ones of `xenspan run`.
  std::vector<std::string> run(unsigned count, const std::vector<std::string>& guest,
                               const std::vector<std::string>& options = {}) const;
  std::vector<std::string> names(unsigned count) const;
  // The control socket of the first host, the home of every domain here.
  std::string socket() const;

 private:
  Testbed(std::string xenspan, std::string prefix);

  std::string xenspan_, prefix_;
  std::vector<BedHost> hosts_;
};

}  // namespace xenspan::bench
