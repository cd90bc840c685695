// The man page and the schema say the same.
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "xenstore-schema/schema.h"

namespace xenspan::xenstore {
namespace {

// What the page has after ".It Pa ": path, then the next line in the form "TYPE, written by WRITER,
// read by READER".
std::vector<std::pair<std::string, std::string>> entries_of_the_page() {
  std::ifstream page(XENSPAN_SOURCE_DIR "/man/xenspan-xenstore.5");
  std::vector<std::pair<std::string, std::string>> entries;
  const std::string mark = ".It Pa ";
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with(mark + "/tool/xenspan/")) continue;
    std::string next;
    std::getline(page, next);
    entries.emplace_back(line.substr(mark.size()), next);
  }
  return entries;
}

TEST(Schema, PageHasEveryNodeWithItsTypeWriterAndReader) {
  const auto entries = entries_of_the_page();
  ASSERT_FALSE(entries.empty()) << "no page, or no node in it";
  const auto rows = schema();
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_LT(i, entries.size()) << rows[i].path << " is not in the page";
    std::ostringstream wanted;
    wanted << rows[i].type << "; written by " << rows[i].writer << "; read by " << rows[i].reader
           << ".";
    EXPECT_EQ(entries[i].first, rows[i].path);
    EXPECT_EQ(entries[i].second, wanted.str()) << rows[i].path;
  }
  EXPECT_EQ(entries.size(), rows.size()) << "the page has nodes that the schema lacks";
}

TEST(Schema, HasEachPathOnce) {
  std::set<std::string_view> seen;
  for (const SchemaNode& row : schema()) EXPECT_TRUE(seen.insert(row.path).second) << row.path;
}

TEST(Schema, FindsRealPaths) {
  const std::string domain = "/tool/xenspan/domain/0f9a51b8-3a2c-4d5e-8f70-112233445566";
  const SchemaNode* row = find_in_schema(domain + "/member/node-2/counters/pages");
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(row->path, "/tool/xenspan/domain/<uuid>/member/<host>/counters/pages");
  EXPECT_NE(find_in_schema(domain + "/vcpu/7/core"), nullptr);
  EXPECT_EQ(find_in_schema(domain + "/vcpu/x/core"), nullptr);
  EXPECT_EQ(find_in_schema(domain), nullptr);
  EXPECT_EQ(find_in_schema(domain + "/state/more"), nullptr);
  EXPECT_EQ(find_in_schema("/tool/xenspan/domain/x/state"), nullptr);
}

}  // namespace
}  // namespace xenspan::xenstore
