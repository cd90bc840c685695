#include "dom0-daemon/hypervisor/xen/home_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace xenspan::hypervisor::xen {

std::string to_text(const std::vector<HomePage>& pages) {
  std::string text;
  for (const HomePage& page : pages) text += fmt::format("{:x} {}\n", page.gfn, page.what);
  return text;
}

std::vector<HomePage> home_pages_from(std::string_view text) {
  std::vector<HomePage> pages;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    HomePage page;
    const char* end = line.data() + line.size();
    const auto read = std::from_chars(line.data(), end, page.gfn, 16);
    if (read.ec != std::errc() || read.ptr == end || *read.ptr != ' ') continue;
    page.what.assign(read.ptr + 1, end);
    pages.push_back(std::move(page));
  }
  std::sort(pages.begin(), pages.end(), [](const auto& a, const auto& b) { return a.gfn < b.gfn; });
  return pages;
}

const HomePage* find_home_page(const std::vector<HomePage>& pages, dsm::Gfn gfn) {
  const auto at =
      std::lower_bound(pages.begin(), pages.end(), gfn,
                       [](const HomePage& page, dsm::Gfn wanted) { return page.gfn < wanted; });
  return at == pages.end() || at->gfn != gfn ? nullptr : &*at;
}

}  // namespace xenspan::hypervisor::xen
