// One JSON document out of the statistics of a domain's slices (`xenspan stats`, `xenspan run
// --stats`).
//
// Each slice reports its own; here they are added up, the hottest pages of all are found, and the
// names the home's slice gives to them are put beside. man/xenspan.1 documents the document.
// Threading: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

inline constexpr int kHottestPages = 20;

struct HotPage {
  std::uint64_t gfn = 0;
  std::uint64_t faults = 0;
  std::map<std::string, std::uint64_t> by_host;
};

// The pages with most faults over all hosts, hottest first, at most kHottestPages.
std::vector<HotPage> hottest_pages(const std::map<std::string, Json>& by_host);

// Adds up the faults of one kind: counts, histograms; percentiles are taken from the summed
// histogram.
Json merge_faults(const std::vector<Json>& parts);

// The guest-physical bytes whose names stats_report() wants: those of `pages`, and where vCPUs
// fight.
std::vector<std::uint64_t> bytes_to_name(const DomainRecord& record,
                                         const std::map<std::string, Json>& by_host,
                                         const std::vector<HotPage>& pages);

Json stats_report(const DomainRecord& record, const std::map<std::string, Json>& by_host,
                  const std::vector<HotPage>& pages, const std::vector<std::string>& names);

}  // namespace xenspan::daemon
