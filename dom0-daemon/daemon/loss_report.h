// What was lost with a host, as one sentence: from what the slices that are left know of its pages.
//
// Pure functions. `holdings` are the `holdings` events of slice/control.md, by host.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

struct PageRun {
  std::uint64_t first = 0, count = 0;
};

struct LostPages {
  std::vector<PageRun> alone;     // their managers are left and know
  std::vector<PageRun> orphaned;  // managed by a lost host; given away by the home, held by nobody
  bool partial = false;           // a slice did not tell
};

// `home` names the one whose `gone` list counts.
LostPages lost_pages(const std::map<std::string, Json>& holdings, const std::string& home,
                     std::size_t expected);
// The guest-physical bytes whose names the sentence wants, at most six.
std::vector<std::uint64_t> bytes_to_name(const LostPages& pages);

struct LossStory {
  std::vector<std::string> hosts;
  std::string cause;        // "its slice ended with signal 9"
  std::uint64_t epoch = 0;  // 0: nothing was agreed on
  std::vector<std::string> by;
};
// The domain went on.
std::string survived_sentence(const LossStory& story);
std::string loss_sentence(const LossStory& story, const DomainRecord& record,
                          const LostPages& pages, const std::vector<std::string>& names);

}  // namespace xenspan::daemon
