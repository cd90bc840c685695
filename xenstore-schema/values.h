// What nodes hold: the words an admin reads and writes, and how numbers and lists look as text.
//
// Every decode function takes any bytes and gives nothing when they are not such a value. Plain
// functions on plain values: any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace xenspan::xenstore {

enum class HostState { kStarting, kUp, kDraining, kDown, kFailed };
enum class HostRequest { kNone, kDrain, kResume };
enum class Backend { kUsermode, kXen };  // what a host runs domains with, and what kind a domain is
// What pages travel by; none: the domain has one host.
enum class Transport { kNone, kTcp, kVerbs };
// How a domain's vCPUs are placed, and whether they move by themselves.
enum class Policy { kSpread, kPack, kLoad, kAffinity };
enum class DomainState { kCreating, kRunning, kDraining, kEnded, kFailed };
enum class DomainRequest { kNone, kDestroy };
enum class MemberState { kJoining, kActive, kDraining, kLeft, kFailed };
enum class MemberRequest { kNone, kAdd, kDrain, kRemove };

// A word, as in xenstore: to_word(HostState::kUp) is "up". A request kNone is "".
template <typename Enum>
std::string_view to_word(Enum value);
template <typename Enum>
std::optional<Enum> from_word(std::string_view word);
// All words, "a, b or c", for error texts.
template <typename Enum>
std::string words_of();

std::optional<uint64_t> decode_number(std::string_view text, uint64_t min, uint64_t max);

// CPU numbers as the kernel writes them: "0-3,8". Decoding gives them sorted, each once.
std::string encode_cpus(std::vector<uint32_t> cpus);
std::optional<std::vector<uint32_t>> decode_cpus(std::string_view text);

// Words with one space between.
std::string encode_words(const std::vector<std::string>& words);
std::optional<std::vector<std::string>> decode_words(std::string_view text);
// 16 hexadecimal digits that are the same for the same set of words (FNV-1a over the sorted words).
std::string hash_words(std::vector<std::string> words);
bool is_hash(std::string_view text);

// One line that a terminal can show: control characters become spaces, what is longer than kMaxText
// is cut (between UTF-8 characters) and ends in "...".
inline constexpr size_t kMaxText = 1024;
std::string encode_text(std::string_view text);
bool is_text(std::string_view text);

}  // namespace xenspan::xenstore
