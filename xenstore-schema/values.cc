#include "xenstore-schema/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <span>

namespace xenspan::xenstore {
namespace {

constexpr uint32_t kMaxCpu =
    65535;  // bounds what a range such as "0-4294967295" may make us allocate

template <typename Enum>
struct Word {
  Enum value;
  std::string_view text;
};

constexpr Word<HostState> kHostStates[] = {{HostState::kStarting, "starting"},
                                           {HostState::kUp, "up"},
                                           {HostState::kDraining, "draining"},
                                           {HostState::kDown, "down"},
                                           {HostState::kFailed, "failed"}};
constexpr Word<HostRequest> kHostRequests[] = {
    {HostRequest::kNone, ""}, {HostRequest::kDrain, "drain"}, {HostRequest::kResume, "resume"}};
constexpr Word<Backend> kBackends[] = {{Backend::kUsermode, "usermode"}, {Backend::kXen, "xen"}};
constexpr Word<Transport> kTransports[] = {
    {Transport::kNone, "none"}, {Transport::kTcp, "tcp"}, {Transport::kVerbs, "verbs"}};
constexpr Word<Policy> kPolicies[] = {{Policy::kSpread, "spread"},
                                      {Policy::kPack, "pack"},
                                      {Policy::kLoad, "load"},
                                      {Policy::kAffinity, "affinity"}};
constexpr Word<DomainState> kDomainStates[] = {{DomainState::kCreating, "creating"},
                                               {DomainState::kRunning, "running"},
                                               {DomainState::kDraining, "draining"},
                                               {DomainState::kEnded, "ended"},
                                               {DomainState::kFailed, "failed"}};
constexpr Word<DomainRequest> kDomainRequests[] = {{DomainRequest::kNone, ""},
                                                   {DomainRequest::kDestroy, "destroy"}};
constexpr Word<MemberState> kMemberStates[] = {{MemberState::kJoining, "joining"},
                                               {MemberState::kActive, "active"},
                                               {MemberState::kDraining, "draining"},
                                               {MemberState::kLeft, "left"},
                                               {MemberState::kFailed, "failed"}};
constexpr Word<MemberRequest> kMemberRequests[] = {{MemberRequest::kNone, ""},
                                                   {MemberRequest::kAdd, "add"},
                                                   {MemberRequest::kDrain, "drain"},
                                                   {MemberRequest::kRemove, "remove"}};

std::span<const Word<HostState>> table(HostState) { return kHostStates; }
std::span<const Word<HostRequest>> table(HostRequest) { return kHostRequests; }
std::span<const Word<Backend>> table(Backend) { return kBackends; }
std::span<const Word<Transport>> table(Transport) { return kTransports; }
std::span<const Word<Policy>> table(Policy) { return kPolicies; }
std::span<const Word<DomainState>> table(DomainState) { return kDomainStates; }
std::span<const Word<DomainRequest>> table(DomainRequest) { return kDomainRequests; }
std::span<const Word<MemberState>> table(MemberState) { return kMemberStates; }
std::span<const Word<MemberRequest>> table(MemberRequest) { return kMemberRequests; }

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

template <typename Enum>
std::string_view to_word(Enum value) {
  for (const auto& word : table(Enum())) {
    if (word.value == value) return word.text;
  }
  return "";
}

template <typename Enum>
std::optional<Enum> from_word(std::string_view text) {
  for (const auto& word : table(Enum())) {
    if (word.text == text) return word.value;
  }
  return std::nullopt;
}

template <typename Enum>
std::string words_of() {
  const auto words = table(Enum());
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i].text.empty() ? "empty" : words[i].text;
  }
  return text;
}

#define XENSPAN_WORDS(Enum)                                       \
  template std::string_view to_word<Enum>(Enum);                  \
  template std::optional<Enum> from_word<Enum>(std::string_view); \
  template std::string words_of<Enum>();
XENSPAN_WORDS(HostState)
XENSPAN_WORDS(HostRequest)
XENSPAN_WORDS(Backend)
XENSPAN_WORDS(Transport)
XENSPAN_WORDS(Policy)
XENSPAN_WORDS(DomainState)
XENSPAN_WORDS(DomainRequest)
XENSPAN_WORDS(MemberState)
XENSPAN_WORDS(MemberRequest)
#undef XENSPAN_WORDS

std::optional<uint64_t> decode_number(std::string_view text, uint64_t min, uint64_t max) {
  uint64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || end != last || number < min || number > max) return std::nullopt;
  return number;
}

std::string encode_cpus(std::vector<uint32_t> cpus) {
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += last == i ? fmt::format("{}", cpus[i]) : fmt::format("{}-{}", cpus[i], cpus[last]);
    i = last + 1;
  }
  return text;
}

std::optional<std::vector<uint32_t>> decode_cpus(std::string_view text) {
  std::vector<uint32_t> cpus;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const size_t dash = part.find('-');
    const auto first = decode_number(part.substr(0, dash), 0, kMaxCpu);
    const auto last =
        dash == std::string_view::npos ? first : decode_number(part.substr(dash + 1), 0, kMaxCpu);
    if (!first || !last || *first > *last) return std::nullopt;
    if (cpus.size() + (*last - *first) > kMaxCpu) return std::nullopt;
    for (uint64_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(static_cast<uint32_t>(cpu));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return std::nullopt;  // "0,"
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

std::string encode_words(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, " "));
}

std::optional<std::vector<std::string>> decode_words(std::string_view text) {
  if (std::any_of(text.begin(), text.end(), is_control)) return std::nullopt;
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t space = text.find(' ');
    const std::string_view word = text.substr(0, space);
    if (!word.empty()) words.emplace_back(word);
    if (space == std::string_view::npos) break;
    text.remove_prefix(space + 1);
  }
  return words;
}

std::string hash_words(std::vector<std::string> words) {
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, 64 bits: offset basis and prime
  for (char c : encode_words(words)) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", hash);
}

bool is_hash(std::string_view text) {
  return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string encode_text(std::string_view text) {
  std::string line(text);
  if (line.size() > kMaxText) {
    constexpr std::string_view kCut = "...";
    size_t size = kMaxText - kCut.size();
    while (size > 0 && is_continuation(line[size])) --size;
    line.resize(size);
    line += kCut;
  }
  std::replace_if(line.begin(), line.end(), is_control, ' ');
  return line;
}

bool is_text(std::string_view text) {
  return text.size() <= kMaxText && std::none_of(text.begin(), text.end(), is_control);
}

}  // namespace xenspan::xenstore
