// From slices' counts to advice: the merge, the clustering, the text.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "dom0-daemon/cli/advice.h"
#include "dom0-daemon/cli/top_fight.h"
#include "dom0-daemon/daemon/affinity.h"
#include "dom0-daemon/daemon/sharing_report.h"
#include "dom0-daemon/daemon/stats_report.h"

namespace xenspan::daemon {
namespace {

Json user(int vcpu, int low, int high, bool writes, int faults) {
  return {{"vcpu", vcpu}, {"low", low}, {"high", high}, {"writes", writes}, {"faults", faults}};
}
Json took(int vcpu, const char* from, std::uint64_t faults) {
  return {{"vcpu", vcpu}, {"from", from}, {"faults", faults}};
}
Json slice(Json taken, Json pages, int ms = 1000) {
  return {{"sharing", {{"ms", ms}, {"taken", std::move(taken)}, {"pages", std::move(pages)}}}};
}
Json page(std::uint64_t gfn, Json users) { return {{"gfn", gfn}, {"users", std::move(users)}}; }

// --- the merge ---

const std::vector<std::string> kTwoAndTwo = {"a", "a", "b", "b"};

// vCPUs 0 and 3 fight over page 5, 1 and 2 over page 6.
std::map<std::string, Json> two_fights() {
  return {{"a", slice({took(0, "b", 900), took(1, "b", 100)},
                      {page(5, {user(0, 0, 0, true, 900)}), page(6, {user(1, 8, 8, true, 100)})})},
          {"b", slice({took(3, "a", 800), took(2, "a", 120)},
                      {page(5, {user(3, 0, 0, true, 800)}), page(6, {user(2, 16, 16, true, 120)}),
                       page(7, {user(2, 0, 0, true, 5000)})},
                      2500)}};
}

TEST(Sharing, FaultsGoToTheVcpusThatFightOverTheSamePages) {
  const auto sharing = merge_sharing(two_fights(), kTwoAndTwo);
  EXPECT_DOUBLE_EQ(sharing.seconds, 2.5);
  EXPECT_EQ(sharing.hosts.at("a").at("b"), 1000u);
  EXPECT_EQ(sharing.hosts.at("b").at("a"), 920u);
  using Row = std::map<std::size_t, std::uint64_t>;
  EXPECT_EQ(sharing.vcpus.at(0), (Row{{3, 900}}));
  EXPECT_EQ(sharing.vcpus.at(1), (Row{{2, 100}}));
  EXPECT_EQ(sharing.vcpus.at(2), (Row{{1, 120}}));
  EXPECT_EQ(sharing.vcpus.at(3), (Row{{0, 800}}));
  // Page 7 has one host alone: nobody fights there.
  ASSERT_EQ(sharing.pages.size(), 2u);
  EXPECT_EQ(sharing.pages[0].gfn, 5u);
  EXPECT_EQ(sharing.pages[0].faults, 1700u);
  EXPECT_EQ(bytes_to_name(sharing),
            (std::vector<std::uint64_t>{5 * 4096, 5 * 4096, 6 * 4096 + 16, 6 * 4096 + 8}));
}

TEST(Sharing, SeveralOpponentsShareAVcpusFaultsAsTheyFaultThemselves) {
  const auto sharing = merge_sharing(
      {{"a", slice({took(0, "b", 400)}, {page(5, {user(0, 0, 0, true, 40)})})},
       {"b", slice(Json::array(), {page(5, {user(2, 0, 0, true, 10), user(3, 0, 0, true, 30)})})}},
      kTwoAndTwo);
  EXPECT_EQ(sharing.vcpus.at(0).at(2), 100u);
  EXPECT_EQ(sharing.vcpus.at(0).at(3), 300u);
}

TEST(Sharing, WhereNoPageTellsTheFaultsAreSharedEvenly) {
  const auto sharing = merge_sharing({{"a", slice({took(1, "b", 5)}, Json::array())}}, kTwoAndTwo);
  EXPECT_EQ(sharing.vcpus.at(1).at(2) + sharing.vcpus.at(1).at(3), 5u);
  EXPECT_GE(sharing.vcpus.at(1).at(2), 2u);
  EXPECT_GE(sharing.vcpus.at(1).at(3), 2u);
}

TEST(Sharing, WhatDoesNotFitIsLeftOut) {
  const Json pages = {page(5, {user(0, 9, 4096, true, 1),
                               user(0, 9, 8, true, 1),
                               user(2, 0, 0, true, 1),
                               user(9, 0, 0, true, 1),
                               Json("x"),
                               {{"vcpu", -1}}}),
                      {{"gfn", "x"}},
                      Json(3)};
  const auto sharing =
      merge_sharing({{"a", slice({took(0, "c", 1), took(0, "a", 1), took(2, "b", 1),
                                  took(9, "b", 1), Json(1), took(0, "b", ~std::uint64_t{0})},
                                 pages)},
                     {"b", {{"sharing", "x"}}},
                     {"c", Json::array()}},
                    kTwoAndTwo);
  EXPECT_TRUE(sharing.hosts.empty());
  EXPECT_TRUE(sharing.vcpus.empty());
  EXPECT_TRUE(sharing.pages.empty());
}

TEST(Sharing, IsPartOfTheReportWithItsNames) {
  DomainRecord record;
  for (const std::string& host : kTwoAndTwo) record.vcpus.push_back({host, 0, 0});
  auto by_host = two_fights();
  by_host["a"]["hottest"] = Json::array({{{"gfn", 5}, {"faults", 900}}});
  const auto pages = hottest_pages(by_host);
  EXPECT_EQ(bytes_to_name(record, by_host, pages).size(), 1u + 4u);
  const Json report = stats_report(record, by_host, pages, {"page", "zero", "three", "two", "one"});
  EXPECT_EQ(report["placement"], Json(kTwoAndTwo));
  EXPECT_EQ(report["hottest"][0]["name"], "page");
  EXPECT_EQ(report["sharing"]["vcpus"]["3"]["0"], 800);
  const Json& users = report["sharing"]["pages"][1]["users"];
  EXPECT_EQ(users[0]["vcpu"], 2);
  EXPECT_EQ(users[0]["host"], "b");
  EXPECT_EQ(users[0]["name"], "two");
  EXPECT_EQ(users[1]["name"], "one");
  EXPECT_FALSE(report["hosts"]["a"].contains("sharing"));
}

// --- the clustering ---

using Matrix = std::vector<std::vector<std::uint64_t>>;

AffinityProblem problem(std::size_t vcpus, std::vector<int> host, std::vector<int> room) {
  return {
      Matrix(vcpus, std::vector<std::uint64_t>(vcpus)), std::move(host), std::move(room), {}, 0};
}

TEST(Affinity, PairsThatFightComeTogether) {
  auto given = problem(4, {0, 0, 1, 1}, {2, 2});
  given.takes[0][3] = given.takes[3][0] = 100;
  given.takes[1][2] = 50;
  const auto found = group_vcpus(given);
  EXPECT_EQ(found.host, (std::vector<int>{0, 1, 1, 0}));
  EXPECT_EQ(found.before, 250u);
  EXPECT_EQ(found.after, 0u);
}

TEST(Affinity, RoomIsKept) {
  auto given = problem(3, {0, 1, 1}, {1, 2});
  given.takes[0][1] = given.takes[0][2] = 10;
  given.takes[1][2] = 3;
  const auto found = group_vcpus(given);
  EXPECT_EQ(std::count(found.host.begin(), found.host.end(), 0), 1);
  EXPECT_EQ(found.after, 13u);  // vCPU 0 and one of the others on host 1
  given.room = {3, 2};
  EXPECT_EQ(group_vcpus(given).after, 0u);
}

TEST(Affinity, AHostKeepsTheRoomItUses) {
  auto given = problem(4, {0, 0, 1, 1}, {1, 1});
  given.takes[0][2] = given.takes[1][3] = 9;
  EXPECT_EQ(group_vcpus(given).after, 0u);
}

TEST(Affinity, NothingMovesWithoutGain) {
  auto given = problem(4, {1, 0, 1, 0}, {4, 4});
  EXPECT_EQ(group_vcpus(given).host, given.host);
  given.takes[0][1] = 5;
  given.price = 6;
  EXPECT_EQ(group_vcpus(given).host, given.host);
  given.price = 4;
  EXPECT_EQ(group_vcpus(given).after, 0u);
}

TEST(Affinity, FixedVcpusStay) {
  auto given = problem(2, {0, 1}, {2, 2});
  given.takes[0][1] = 5;
  given.fixed = {true, false};
  EXPECT_EQ(group_vcpus(given).host, (std::vector<int>{0, 0}));
  given.fixed = {false, true};
  EXPECT_EQ(group_vcpus(given).host, (std::vector<int>{1, 1}));
  given.fixed = {true, true};
  EXPECT_EQ(group_vcpus(given).host, given.host);
}

// Every placement there is.
std::uint64_t least_cut(const AffinityProblem& given) {
  const std::size_t size = given.host.size(), hosts = given.room.size();
  std::uint64_t best = ~std::uint64_t{0};
  std::size_t all = 1;
  for (std::size_t i = 0; i < size; ++i) all *= hosts;
  for (std::size_t code = 0; code < all; ++code) {
    std::vector<std::size_t> host(size);
    std::vector<int> used(hosts);
    for (std::size_t i = 0, rest = code; i < size; ++i, rest /= hosts)
      ++used[host[i] = rest % hosts];
    bool fits = true;
    for (std::size_t h = 0; h < hosts; ++h) fits = fits && used[h] <= given.room[h];
    std::uint64_t cut = 0;
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < size; ++j)
        if (host[i] != host[j]) cut += given.takes[i][j];
    if (fits) best = std::min(best, cut);
  }
  return best;
}

TEST(Affinity, SmallProblemsAreSolvedExactly) {
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    auto given = problem(6, {0, 0, 1, 1, 2, 2}, {2, 3, 2});
    for (auto& row : given.takes)
      for (auto& cell : row) cell = random() % 3 == 0 ? random() % 100 : 0;
    for (std::size_t i = 0; i < 6; ++i) given.takes[i][i] = 0;
    const auto found = group_vcpus(given);
    EXPECT_EQ(found.after, least_cut(given));
    EXPECT_EQ(found.host, group_vcpus(given).host);
  }
}

TEST(Affinity, LargeProblemsFindTheirGroups) {
  constexpr std::size_t kVcpus = 96, kHosts = 8;
  std::vector<int> host;
  for (std::size_t i = 0; i < kVcpus; ++i) host.push_back(static_cast<int>(i / (kVcpus / kHosts)));
  auto given = problem(kVcpus, host, std::vector<int>(kHosts, kVcpus / kHosts));
  std::mt19937 random(5);
  for (std::size_t i = 0; i < kVcpus; ++i)
    for (std::size_t j = 0; j < kVcpus; ++j)
      if (i != j) given.takes[i][j] = i % kHosts == j % kHosts ? 100 + random() % 50 : random() % 3;
  given.fixed.assign(kVcpus, false);
  given.fixed[0] = true;
  const auto found = group_vcpus(given);
  for (std::size_t i = 0; i < kVcpus; ++i) EXPECT_EQ(found.host[i], found.host[i % kHosts]) << i;
  EXPECT_EQ(found.host[0], 0);
  EXPECT_LT(found.after * 10, found.before);
  EXPECT_EQ(found.host, group_vcpus(given).host);
}

// --- the advice ---

Json named(Json users, std::vector<std::string> names) {
  for (std::size_t i = 0; i < names.size(); ++i) users[i]["name"] = names[i];
  return users;
}
Json document(Json pages) {
  return {{"name", "job"},
          {"placement", kTwoAndTwo},
          {"cores", {{"a", 1}, {"b", 1}}},
          {"sharing",
           {{"seconds", 2.0},
            {"vcpus",
             {{"0", {{"3", 12400}}},
              {"3", {{"0", 12400}}},
              {"1", {{"2", 6000}}},
              {"2", {{"1", 6000}}}}},
            {"hosts", {{"a", {{"b", 18400}}}, {"b", {{"a", 18400}}}}},
            {"pages", std::move(pages)}}}};
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST(Advice, NamesPairsAndTheBestPlacement) {
  const auto advice = cli::advice_from(document(Json::array()));
  ASSERT_TRUE(advice.ok());
  const Json json = cli::to_json(*advice);
  EXPECT_EQ(json["faults"], 36800);
  EXPECT_EQ(json["pairs"][0]["vcpus"], Json({0, 3}));
  EXPECT_EQ(json["pairs"][1]["vcpus"], Json({1, 2}));
  EXPECT_EQ(json["placement"]["hosts"]["a"], Json({0, 3}));
  EXPECT_EQ(json["placement"]["faults_now"], 36800);
  EXPECT_EQ(json["placement"]["faults_then"], 0);
  const std::string text = cli::advice_text(*advice);
  EXPECT_TRUE(has(text,
                  "vCPUs 0 and 3 take pages from each other 12 400 times a second; together "
                  "on one host they would not.\n"))
      << text;
  EXPECT_TRUE(has(text,
                  "Best placement: vCPUs 0 and 3 on host a; vCPUs 1 and 2 on host b. It saves "
                  "18 400 of 18 400 faults a second (100 %).\n"))
      << text;
  EXPECT_TRUE(has(text, "0 on a      .      .      .  6 200\n")) << text;
}

TEST(Advice, FalseSharingIsToldFromRealSharing) {
  const auto advice = cli::advice_from(document(
      {{{"gfn", 16},
        {"faults", 24000},
        {"users", named({user(0, 0, 0, true, 12000), user(3, 8, 8, true, 11990),
                         user(1, 0, 4088, true, 10)},  // its first use: too little to matter
                        {"hits (x)", "hits+0x8 (x)", "hits (x)"})}},
       {{"gfn", 17},
        {"faults", 12000},
        {"users", named({user(1, 64, 64, true, 6000), user(2, 64, 64, true, 6000)},
                        {"lock (x)", "lock (x)"})}},
       {{"gfn", 18}, {"faults", 9}, {"users", {user(1, 0, 0, true, 5), user(2, 8, 8, true, 4)}}}}));
  ASSERT_TRUE(advice.ok());
  const Json json = cli::to_json(*advice);
  ASSERT_EQ(json["pad"].size(), 1u);
  EXPECT_EQ(json["pad"][0]["gfn"], 16);
  EXPECT_EQ(json["pad"][0]["align"], 4096);
  ASSERT_EQ(json["pad"][0]["parts"].size(), 2u);
  EXPECT_EQ(json["pad"][0]["parts"][1][0]["name"], "hits+0x8 (x)");
  EXPECT_EQ(json["pad"][0]["parts"][1][0]["vcpus"], Json({3}));
  ASSERT_EQ(json["shared"].size(), 1u);
  EXPECT_EQ(json["shared"][0]["places"][0]["vcpus"], Json({1, 2}));
  const std::string text = cli::advice_text(*advice);
  EXPECT_TRUE(has(text,
                  "page 0x10, 12 000 faults a second\n  - vCPU 0 writes offset 0x0: hits (x)\n"
                  "  - vCPU 3 writes offset 0x8: hits+0x8 (x)\n"
                  "  Align each to 4096 bytes, and pad it to 4096.\n"))
      << text;
  EXPECT_TRUE(has(text, "  - vCPUs 1 and 2 write offset 0x40: lock (x)\n")) << text;
}

TEST(Advice, ALockAndItsDataStayTogether) {
  // Both vCPUs use both: padding would make it two faults.
  const auto advice =
      cli::advice_from(document({{{"gfn", 16},
                                  {"faults", 4000},
                                  {"users",
                                   {user(0, 0, 0, true, 1000), user(0, 128, 256, true, 1000),
                                    user(3, 0, 0, true, 1000), user(3, 128, 256, false, 1000)}}}}));
  ASSERT_TRUE(advice.ok());
  EXPECT_TRUE(advice->to_pad.empty());
  ASSERT_EQ(advice->shared.size(), 1u);
  EXPECT_EQ(advice->shared[0].parts[0].size(), 2u);
}

TEST(Advice, PagesOfMallocAreToldApart) {
  const auto faults_of = [](const char* name) {
    Json users{user(1, 48, 48, true, 2000), user(3, 48, 48, true, 2000)};
    for (Json& each : users) each["name"] = name;
    const auto advice =
        cli::advice_from(document({{{"gfn", 16}, {"faults", 4000}, {"users", users}}}));
    EXPECT_TRUE(advice.ok());
    const bool told = has(cli::advice_text(*advice), "LD_PRELOAD=libmimalloc.so.2");
    EXPECT_EQ(told, advice->allocator_matters());
    EXPECT_EQ(cli::to_json(*advice)["allocator"]["faults"], advice->allocator_faults);
    return advice->allocator_faults;
  };
  EXPECT_EQ(faults_of("[heap]+0x4500"), 4000u);
  EXPECT_EQ(faults_of("[anon 0x8004000000]"), 4000u);
  EXPECT_EQ(faults_of("[anon 0x8004000000]+0x8a8"), 4000u);
  EXPECT_EQ(faults_of("[anon 0x8004000000]+0x1000"), 0u);  // what it gave out may be a matrix
  EXPECT_EQ(faults_of("[anon 0x8003000000]"), 0u);
  EXPECT_EQ(faults_of("[anon 0x"), 0u);
  EXPECT_EQ(faults_of("counter (program)"), 0u);
}

TEST(Advice, TwoHalvesOfOnePageAreTwoParts) {
  const auto advice = cli::advice_from(
      document({{{"gfn", 16},
                 {"faults", 4000},
                 {"users", {user(0, 0, 2040, true, 2000), user(3, 2048, 4088, false, 2000)}}}}));
  ASSERT_TRUE(advice.ok());
  ASSERT_EQ(advice->to_pad.size(), 1u);
  EXPECT_TRUE(has(cli::advice_text(*advice), "vCPU 3 reads offsets 0x800 to 0xff8\n"));
}

TEST(Advice, PagesThatNobodyWritesOrThatOneHostUsesAreNoFights) {
  const auto advice = cli::advice_from(
      document({{{"gfn", 16},
                 {"faults", 4000},
                 {"users", {user(0, 0, 0, false, 2000), user(3, 8, 8, false, 2000)}}},
                {{"gfn", 17},
                 {"faults", 4000},
                 {"users", {user(2, 0, 0, true, 2000), user(3, 8, 8, true, 2000)}}}}));
  ASSERT_TRUE(advice.ok());
  EXPECT_TRUE(advice->to_pad.empty());
  EXPECT_TRUE(advice->shared.empty());
}

TEST(Advice, ADomainAtPeaceGetsNone) {
  const Json stats{{"name", "job"}, {"placement", {"a"}}, {"sharing", Json::object()}};
  const auto advice = cli::advice_from(stats);
  ASSERT_TRUE(advice.ok());
  EXPECT_FALSE(advice->moves());
  EXPECT_TRUE(has(cli::advice_text(*advice), "nothing to advise"));
}

TEST(Advice, ManyVcpusAreShownAsHeat) {
  Json stats = document(Json::array());
  stats["placement"] = std::vector<std::string>(40, "a");
  for (int i = 20; i < 40; ++i) stats["placement"][static_cast<std::size_t>(i)] = "b";
  stats["sharing"]["vcpus"] = {{"0", {{"39", 1000}, {"20", 1}}}, {"39", {{"0", 500}}}};
  const auto advice = cli::advice_from(stats);
  ASSERT_TRUE(advice.ok());
  const std::string text = cli::advice_text(*advice);
  EXPECT_TRUE(has(text, "0 on a                       .                  @|\n")) << text;
  EXPECT_TRUE(has(text, "39 on b  +")) << text;
}

TEST(Advice, AnyDocumentEndsInAResult) {
  EXPECT_FALSE(cli::advice_from(Json::object()).ok());
  EXPECT_FALSE(cli::advice_from({{"sharing", Json::array()}, {"placement", {"a"}}}).ok());
  EXPECT_FALSE(cli::advice_from({{"sharing", Json::object()}, {"placement", Json::array()}}).ok());
  EXPECT_FALSE(cli::advice_from({{"sharing", Json::object()}, {"placement", {1}}}).ok());
  // One value after the other replaced by something else.
  const Json whole = document({{{"gfn", 16},
                                {"faults", 4000},
                                {"users", {user(0, 0, 8, true, 9), user(3, 8, 8, true, 9)}}}});
  const Json flat = whole.flatten();
  for (const auto& [key, value] : flat.items())
    for (const Json& other : {Json(), Json(-1), Json("x"), Json(1e300), Json(~std::uint64_t{0}),
                              Json::array({1}), Json::object()}) {
      Json changed = whole;
      changed[Json::json_pointer(key)] = other;
      const auto advice = cli::advice_from(changed);
      if (advice) {
        EXPECT_FALSE(cli::advice_text(*advice).empty());
      }
    }
}

TEST(TopFight, NamesThePageThatWasFoughtOverMostLately) {
  const auto stats = [](std::uint64_t old_page, std::uint64_t new_page) {
    const auto user = [](int vcpu, const char* host, std::uint64_t faults, const char* name) {
      return Json{{"vcpu", vcpu}, {"host", host}, {"faults", faults}, {"name", name}};
    };
    Json made;
    made["sharing"]["pages"] = {
        {{"gfn", 16}, {"users", {user(0, "a", old_page, "old"), user(2, "b", old_page, "old")}}},
        {{"gfn", 17},
         {"users",
          {user(0, "a", new_page, "lock"), user(1, "b", 3 * new_page, "lock"),
           user(1, "b", new_page, "lock+8")}}}};
    return made;
  };
  const Json first = stats(1000, 10), then = stats(1001, 110);
  const auto before = cli::fight_sample_of(first, 10), now = cli::fight_sample_of(then, 12);
  EXPECT_EQ(cli::fight_line("p", then, now, before),
            "top fight in p: page 11 (lock): vCPU 1 (b) 200/s, vCPU 0 (a) 50/s");
  EXPECT_EQ(cli::fight_line("p", then, now, now), "") << "no time has passed";
  const auto later = cli::fight_sample_of(then, 14);
  EXPECT_EQ(cli::fight_line("p", then, later, now), "") << "nobody fights any more";
  EXPECT_TRUE(cli::fight_sample_of(Json::object(), 1).faults.empty());
}

}  // namespace
}  // namespace xenspan::daemon
