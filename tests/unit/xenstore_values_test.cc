// Values and paths: what text they become, and what text is refused.
#include <gtest/gtest.h>

#include "xenstore-schema/paths.h"
#include "xenstore-schema/values.h"

namespace xenspan::xenstore {
namespace {

constexpr const char* kUuid = "0f9a51b8-3a2c-4d5e-8f70-112233445566";

TEST(Words, GoBothWays) {
  for (const char* word : {"starting", "up", "draining", "down", "failed"}) {
    const auto state = from_word<HostState>(word);
    ASSERT_TRUE(state) << word;
    EXPECT_EQ(to_word(*state), word);
  }
  for (const char* word : {"creating", "running", "draining", "ended", "failed"}) {
    const auto state = from_word<DomainState>(word);
    ASSERT_TRUE(state) << word;
    EXPECT_EQ(to_word(*state), word);
  }
  for (const char* word : {"joining", "active", "draining", "left", "failed"}) {
    const auto state = from_word<MemberState>(word);
    ASSERT_TRUE(state) << word;
    EXPECT_EQ(to_word(*state), word);
  }
  EXPECT_EQ(from_word<DomainRequest>(""), DomainRequest::kNone);
  EXPECT_FALSE(from_word<HostState>(""));
  EXPECT_FALSE(from_word<HostState>("running"));
  EXPECT_EQ(words_of<Backend>(), "usermode or xen");
}

TEST(Numbers, AreDecimalAndInRange) {
  EXPECT_EQ(decode_number("0", 0, 10), 0u);
  EXPECT_EQ(decode_number("10", 0, 10), 10u);
  EXPECT_EQ(decode_number("18446744073709551615", 0, UINT64_MAX), UINT64_MAX);
  for (const char* bad : {"", "11", "-1", "+1", " 1", "1 ", "0x1", "1.0", "18446744073709551616"}) {
    EXPECT_FALSE(decode_number(bad, 0, 10)) << bad;
  }
}

TEST(Cpus, GoBothWays) {
  EXPECT_EQ(encode_cpus({}), "");
  EXPECT_EQ(encode_cpus({5}), "5");
  EXPECT_EQ(encode_cpus({9, 0, 1, 2, 2, 4, 8}), "0-2,4,8-9");
  EXPECT_EQ(decode_cpus("0-2,4,8-9"), (std::vector<uint32_t>{0, 1, 2, 4, 8, 9}));
  EXPECT_EQ(decode_cpus(""), std::vector<uint32_t>());
  EXPECT_EQ(decode_cpus("3,1,2-3"), (std::vector<uint32_t>{1, 2, 3}));
  for (const char* bad : {",", "0,", ",0", "1-", "-1", "2-1", "a", "0-1-2", "0 1", "0-4294967295",
                          "65536", "0-65535,0-65535"}) {
    EXPECT_FALSE(decode_cpus(bad)) << bad;
  }
}

TEST(WordLists, HashKnowsTheSetOnly) {
  EXPECT_EQ(decode_words(" avx  avx2 "), (std::vector<std::string>{"avx", "avx2"}));
  EXPECT_FALSE(decode_words("avx\tavx2"));
  EXPECT_EQ(hash_words({"b", "a"}), hash_words({"a", "b", "a"}));
  EXPECT_NE(hash_words({"a", "b"}), hash_words({"a", "c"}));
  // FNV-1a of the empty string is its offset basis; of "a", as published.
  EXPECT_EQ(hash_words({}), "cbf29ce484222325");
  EXPECT_EQ(hash_words({"a"}), "af63dc4c8601ec8c");
  EXPECT_TRUE(is_hash(hash_words({"a"})));
}

TEST(Text, IsOneLineAndCutBetweenCharacters) {
  EXPECT_EQ(encode_text("a\tb\r\nc\x7f"), "a b  c ");
  EXPECT_EQ(encode_text("grün"), "grün");
  EXPECT_EQ(encode_text(std::string(kMaxText, 'x')).size(), kMaxText);
  // Two bytes a character, of which the cut would hit the second.
  std::string umlauts;
  while (umlauts.size() <= kMaxText) umlauts += "ü";
  const std::string cut = encode_text(umlauts);
  EXPECT_EQ(cut.size(), kMaxText - 1);
  EXPECT_TRUE(cut.ends_with("ü..."));
  EXPECT_TRUE(is_text(cut));
  EXPECT_FALSE(is_text("two\nlines"));
  EXPECT_FALSE(is_text(std::string(kMaxText + 1, 'x')));
}

TEST(Paths, AreMadeAndTakenApart) {
  const auto host = parse_path(paths::host("node_1") + "/state");
  ASSERT_TRUE(host);
  EXPECT_EQ(host->kind, ParsedPath::Kind::kHost);
  EXPECT_EQ(host->host, "node_1");
  EXPECT_EQ(host->node, "state");

  const auto domain = parse_path(paths::domain(kUuid));
  ASSERT_TRUE(domain);
  EXPECT_EQ(domain->kind, ParsedPath::Kind::kDomain);
  EXPECT_EQ(domain->uuid, kUuid);
  EXPECT_EQ(domain->node, "");
  EXPECT_EQ(parse_path(paths::domain(kUuid) + "/request")->node, "request");
  EXPECT_EQ(parse_path(paths::members(kUuid))->kind, ParsedPath::Kind::kDomain);

  const auto member = parse_path(paths::counters(kUuid, "b") + "/pages");
  ASSERT_TRUE(member);
  EXPECT_EQ(member->kind, ParsedPath::Kind::kMember);
  EXPECT_EQ(member->uuid, kUuid);
  EXPECT_EQ(member->host, "b");
  EXPECT_EQ(member->node, "counters/pages");

  const auto vcpu = parse_path(paths::vcpu(kUuid, 12) + "/host");
  ASSERT_TRUE(vcpu);
  EXPECT_EQ(vcpu->kind, ParsedPath::Kind::kVcpu);
  EXPECT_EQ(vcpu->vcpu, 12u);
  EXPECT_EQ(vcpu->node, "host");

  EXPECT_EQ(parse_path(paths::config(kUuid))->kind, ParsedPath::Kind::kConfig);
}

TEST(Paths, OtherPathsAreNothing) {
  for (const char* path :
       {"", "/", "/tool/xenspan", "/tool/xenspan/", "/tool/xenspan/host", "/tool/xenspan/host/",
        "/tool/xenspanner/host/a", "/tool/xenspan/domain", "/tool/xenspan/domain/not-a-uuid",
        "/local/domain/0", "/tool/xenspan/unknown/a"}) {
    EXPECT_FALSE(parse_path(path)) << path;
  }
  EXPECT_FALSE(parse_path(paths::domain(kUuid) + "/vcpu/x"));
  EXPECT_FALSE(parse_path(paths::domain(kUuid) + "/vcpu/4294967296"));
  EXPECT_FALSE(parse_path(paths::domain(kUuid) + "/member//state"));
}

TEST(Names, AreChecked) {
  EXPECT_TRUE(check_host_name("a"));
  EXPECT_TRUE(check_host_name("Node_1-b"));
  EXPECT_TRUE(check_host_name(std::string(63, 'a')));
  for (const std::string& bad :
       {std::string(), std::string("a.b"), std::string("a/b"), std::string("a b"),
        std::string(64, 'a'), std::string("ä"), std::string("a\0b", 3)}) {
    EXPECT_FALSE(check_host_name(bad)) << bad;
  }
  EXPECT_TRUE(check_uuid(kUuid));
  for (const char* bad :
       {"", "0F9A51B8-3a2c-4d5e-8f70-112233445566", "0f9a51b83a2c4d5e8f70112233445566",
        "0f9a51b8-3a2c-4d5e-8f70-11223344556", "0f9a51b8-3a2c-4d5e-8f70-11223344556g"}) {
    EXPECT_FALSE(check_uuid(bad)) << bad;
  }
}

}  // namespace
}  // namespace xenspan::xenstore
