#include "dom0-daemon/daemon/loss_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "dom0-daemon/daemon/leases.h"

namespace xenspan::daemon {
namespace {

constexpr std::size_t kShown = 3;  // ranges of each kind

std::vector<PageRun> runs_of(const Json& event, const char* key) {
  std::vector<PageRun> runs;
  const Json* list = array_field(event, key);
  if (list == nullptr) return runs;
  for (const Json& each : *list) {
    if (!each.is_array() || each.size() != 2) continue;
    const auto first = whole_number(each[0]);
    const auto count = whole_number(each[1]);
    if (first && count && *count > 0) runs.push_back({*first, *count});
  }
  return runs;
}

// In order, and those that touch each other as one.
std::vector<PageRun> tidy(std::vector<PageRun> runs) {
  std::sort(runs.begin(), runs.end(),
            [](const PageRun& a, const PageRun& b) { return a.first < b.first; });
  std::vector<PageRun> merged;
  for (const PageRun& run : runs) {
    if (merged.empty() || run.first > merged.back().first + merged.back().count) {
      merged.push_back(run);
    } else {
      PageRun& last = merged.back();
      last.count = std::max(last.first + last.count, run.first + run.count) - last.first;
    }
  }
  return merged;
}

// Both in order.
std::vector<PageRun> without(const std::vector<PageRun>& all, const std::vector<PageRun>& taken) {
  std::vector<PageRun> rest;
  for (PageRun run : all) {
    for (const PageRun& hole : taken) {
      if (run.count == 0 || hole.first >= run.first + run.count) break;
      if (hole.first + hole.count <= run.first) continue;
      if (hole.first > run.first) rest.push_back({run.first, hole.first - run.first});
      const std::uint64_t end = run.first + run.count;
      run.first = std::min(end, hole.first + hole.count);
      run.count = end - run.first;
    }
    if (run.count > 0) rest.push_back(run);
  }
  return rest;
}

std::uint64_t total(const std::vector<PageRun>& runs) {
  std::uint64_t pages = 0;
  for (const PageRun& run : runs) pages += run.count;
  return pages;
}

std::string pages_text(std::uint64_t count) {
  return count == 1 ? "1 page" : fmt::format("{} pages", count);
}

std::string runs_text(const std::vector<PageRun>& runs, const std::vector<std::string>& names,
                      std::size_t first_name) {
  std::string text;
  for (std::size_t i = 0; i < std::min(runs.size(), kShown); ++i) {
    const PageRun& run = runs[i];
    text += text.empty() ? "" : ", ";
    text += run.count == 1 ? fmt::format("gfn {:#x}", run.first)
                           : fmt::format("gfns {:#x}-{:#x}", run.first, run.first + run.count - 1);
    const std::size_t name = first_name + i;
    if (name < names.size() && !names[name].empty()) text += " " + names[name];
  }
  return text + (runs.size() > kShown ? ", ..." : "");
}

std::string beginning(const LossStory& story) {
  std::string text =
      fmt::format("lost host{} {}", story.hosts.size() == 1 ? "" : "s", list_text(story.hosts));
  if (story.epoch != 0)
    text += fmt::format(" (epoch {}, agreed on by {})", story.epoch, list_text(story.by));
  return text + ": " + story.cause;
}

std::string vcpus_text(const std::vector<std::string>& hosts, const DomainRecord& record) {
  std::vector<std::string> there;
  for (std::size_t i = 0; i < record.vcpus.size(); ++i)
    if (std::find(hosts.begin(), hosts.end(), record.vcpus[i].host) != hosts.end())
      there.push_back(std::to_string(i));
  if (there.empty()) return "no vCPU ran there";
  return (there.size() == 1 ? "vCPU " : "vCPUs ") + list_text(there) + " ran there";
}

}  // namespace

LostPages lost_pages(const std::map<std::string, Json>& holdings, const std::string& home,
                     std::size_t expected) {
  LostPages pages;
  std::vector<PageRun> held, gone;
  for (const auto& [host, event] : holdings) {
    for (const PageRun& run : runs_of(event, "alone")) pages.alone.push_back(run);
    for (const PageRun& run : runs_of(event, "held")) held.push_back(run);
    if (host == home) gone = runs_of(event, "gone");
    pages.partial = pages.partial || flag_field(event, "cut");
  }
  pages.alone = tidy(std::move(pages.alone));
  pages.orphaned = without(tidy(std::move(gone)), tidy(std::move(held)));
  pages.partial = pages.partial || holdings.size() < expected;
  return pages;
}

std::vector<std::uint64_t> bytes_to_name(const LostPages& pages) {
  std::vector<std::uint64_t> bytes;
  for (const auto* runs : {&pages.alone, &pages.orphaned})
    for (std::size_t i = 0; i < std::min(runs->size(), kShown); ++i)
      bytes.push_back((*runs)[i].first * 4096);
  return bytes;
}

std::string survived_sentence(const LossStory& story) {
  return beginning(story) +
         "; no vCPU ran there and no page was held there alone: the domain goes on";
}

std::string loss_sentence(const LossStory& story, const DomainRecord& record,
                          const LostPages& pages, const std::vector<std::string>& names) {
  std::string text = beginning(story) + "; " + vcpus_text(story.hosts, record);
  const std::uint64_t alone = total(pages.alone), orphaned = total(pages.orphaned);
  if (alone > 0)
    text += fmt::format("; {} that nobody else held: {}", pages_text(alone),
                        runs_text(pages.alone, names, 0));
  if (orphaned > 0)
    text += fmt::format("; {} managed there that nobody else held: {}", pages_text(orphaned),
                        runs_text(pages.orphaned, names, std::min(pages.alone.size(), kShown)));
  if (alone + orphaned == 0 && !pages.partial)
    text += "; no page was held there alone, but it managed pages of others";
  if (pages.partial) text += "; what else it held is not known";
  return text;
}

}  // namespace xenspan::daemon
