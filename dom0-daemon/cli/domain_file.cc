#include "dom0-daemon/cli/domain_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <variant>

#include "dsm-rdma/features.h"
#include "xenstore-schema/values.h"

namespace xenspan::cli {
namespace {

using List = std::vector<std::string>;

struct Value {
  std::variant<std::string, std::uint64_t, List> what;
  int line = 0;
};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads the whole file into settings; knows the syntax, not the keys.
class Parser {
 public:
  Parser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  struct Setting {
    std::string key;
    Value value;
  };

  Result<std::vector<Setting>> parse() {
    std::vector<Setting> settings;
    for (skip_separators(); !at_end(); skip_separators()) {
      Setting setting;
      setting.value.line = line_;
      while (!at_end() && (is_letter(peek()) || is_digit(peek()))) setting.key += take();
      if (setting.key.empty() || is_digit(setting.key.front()))
        return error(fmt::format("unexpected '{}': write KEY = VALUE", peek()));
      skip_blanks();
      if (at_end() || peek() != '=')
        return error(fmt::format("'=' is missing after {}", setting.key));
      take();
      skip_blanks();
      if (Status read = read_value(setting.value); !read) return read.error();
      skip_blanks();
      if (!at_end() && peek() != '\n' && peek() != ';')
        return error(
            fmt::format("unexpected text after the value of {}: one setting a line", setting.key));
      settings.push_back(std::move(setting));
    }
    return settings;
  }

  Error error(const std::string& what) const { return error_at(line_, what); }
  Error error_at(int line, const std::string& what) const {
    return Error{EINVAL, fmt::format("{}:{}: {}", file_, line, what)};
  }

 private:
  bool at_end() const { return position_ >= text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[position_]; }
  char take() {
    if (text_[position_] == '\n') ++line_;
    return text_[position_++];
  }
  // Spaces and comments, not the end of the line.
  void skip_blanks() {
    while (!at_end() && (peek() == ' ' || peek() == '\t' || peek() == '\r')) take();
    if (peek() == '#')
      while (!at_end() && peek() != '\n') take();
  }
  void skip_separators() {
    for (skip_blanks(); !at_end() && (peek() == '\n' || peek() == ';'); skip_blanks()) take();
  }

  Status read_value(Value& value) {
    if (peek() == '"' || peek() == '\'') {
      auto text = read_string();
      if (!text) return text.error();
      value.what = std::move(*text);
      return {};
    }
    if (peek() == '[') return read_list(value);
    std::string word;
    while (!at_end() && (is_letter(peek()) || is_digit(peek()))) word += take();
    char* end = nullptr;
    errno = 0;
    const unsigned long long number = std::strtoull(word.c_str(), &end, 0);
    if (word.empty() || !is_digit(word.front()) || *end != '\0' || errno != 0)
      return error(fmt::format("{} is no value: write a number, a \"string\" or a [\"list\"]",
                               word.empty() ? "this" : word));
    value.what = static_cast<std::uint64_t>(number);
    return {};
  }

  Status read_list(Value& value) {
    List list;
    take();
    for (;;) {
      skip_separators_in_list();
      if (peek() == ']') break;
      if (peek() != '"' && peek() != '\'')
        return error("a list holds \"strings\" with commas between, and ends with ]");
      auto text = read_string();
      if (!text) return text.error();
      list.push_back(std::move(*text));
      skip_separators_in_list();
      if (peek() == ',')
        take();
      else if (peek() != ']')
        return error("a list needs a comma between its strings and a ] at its end");
    }
    take();
    value.what = std::move(list);
    return {};
  }

  void skip_separators_in_list() {
    for (skip_blanks(); !at_end() && peek() == '\n'; skip_blanks()) take();
  }

  Result<std::string> read_string() {
    const char quote = take();
    std::string text;
    while (!at_end() && peek() != quote && peek() != '\n') {
      const char c = take();
      if (c != '\\') {
        text += c;
        continue;
      }
      const auto escaped = read_escape();
      if (!escaped) return error("unknown escape in a string: use \\\\ for a backslash");
      text += *escaped;
    }
    if (peek() != quote || at_end())
      return error(fmt::format("the string's closing {} is missing", quote));
    take();
    return text;
  }

  std::optional<char> read_escape() {
    static const std::map<char, char> kPlain = {
        {'a', '\a'}, {'b', '\b'}, {'f', '\f'},  {'n', '\n'},  {'r', '\r'},
        {'t', '\t'}, {'v', '\v'}, {'\\', '\\'}, {'\'', '\''}, {'"', '"'}};
    if (at_end()) return std::nullopt;
    if (const auto found = kPlain.find(peek()); found != kPlain.end()) {
      take();
      return found->second;
    }
    const bool hex = peek() == 'x';
    if (hex) take();
    std::string digits;
    while (!at_end() && digits.size() < (hex ? 2u : 3u) &&
           (hex ? std::isxdigit(static_cast<unsigned char>(peek())) != 0
                : peek() >= '0' && peek() <= '7'))
      digits += take();
    unsigned value = 0;
    const auto [rest, code] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 8);
    if (digits.empty() || code != std::errc{} || value == 0 || value > 255) return std::nullopt;
    return static_cast<char>(value);
  }

  std::string_view text_;
  const std::string& file_;
  std::size_t position_ = 0;
  int line_ = 1;
};

// Turns settings into a DomainFile; knows the keys.
class Reader {
 public:
  Reader(const Parser& parser, DomainFile& file) : parser_(parser), file_(file) {}

  Status take(const Parser::Setting& setting) {
    const std::string& key = setting.key;
    if (!seen_.insert(key).second)
      return wrong(setting, fmt::format("{} is set twice: remove one", key));
    if (key == "name") return text(setting, file_.name);
    if (key == "type") return type(setting);
    if (key == "memory") return memory(setting);
    if (key == "vcpus") return vcpus(setting);
    if (key == "hosts") return list(setting, file_.hosts);
    if (key == "command") return list(setting, file_.command);
    if (key == "environment") return environment(setting);
    if (key == "directory") return text(setting, file_.directory);
    if (key == "prefetch") return prefetch(setting);
    if (key == "without") return without(setting);
    if (key == "transport") return transport(setting);
    if (key == "policy") return policy(setting);
    if (key == "stdin") return text(setting, file_.input);
    if (key == "stdout") return text(setting, file_.output);
    if (key == "stderr") return text(setting, file_.errors);
    return wrong(setting, fmt::format("unknown key {}: see xenspan.cfg(5)", key));
  }

  Status finish(const std::string& file) const {
    for (const char* key : {"name", "type", "command"})
      if (!seen_.contains(key))
        return Error{EINVAL, fmt::format("{}: {} is missing: see xenspan.cfg(5)", file, key)};
    if (file_.command.empty())
      return Error{EINVAL, fmt::format("{}: command is empty: name a program", file)};
    return {};
  }

 private:
  Status wrong(const Parser::Setting& setting, const std::string& what) const {
    return parser_.error_at(setting.value.line, what);
  }

  Status text(const Parser::Setting& setting, std::string& into) {
    const auto* value = std::get_if<std::string>(&setting.value.what);
    if (value == nullptr)
      return wrong(setting, fmt::format("{} must be a \"string\"", setting.key));
    into = *value;
    return {};
  }

  Status list(const Parser::Setting& setting, List& into) {
    const auto* value = std::get_if<List>(&setting.value.what);
    if (value == nullptr)
      return wrong(setting, fmt::format("{} must be a list: [\"...\", \"...\"]", setting.key));
    into = *value;
    return {};
  }

  Status number(const Parser::Setting& setting, std::uint64_t low, std::uint64_t high,
                std::uint64_t& into) {
    // xl takes numbers in quotes too.
    if (const auto* quoted = std::get_if<std::string>(&setting.value.what)) {
      const char* end = quoted->data() + quoted->size();
      const auto [rest, code] = std::from_chars(quoted->data(), end, into);
      if (code != std::errc{} || rest != end)
        return wrong(setting, fmt::format("{} must be a number", setting.key));
    } else if (const auto* value = std::get_if<std::uint64_t>(&setting.value.what)) {
      into = *value;
    } else {
      return wrong(setting, fmt::format("{} must be a number", setting.key));
    }
    if (into < low || into > high)
      return wrong(setting, fmt::format("{} must be from {} to {}", setting.key, low, high));
    return {};
  }

  Status type(const Parser::Setting& setting) {
    std::string value;
    if (Status read = text(setting, value); !read) return read;
    if (value == "usermode") return {};
    if (value == "hvm" || value == "pvh" || value == "pv")
      return wrong(setting,
                   fmt::format("type \"{}\" is a Xen guest: start it with xl create; xenspan "
                               "create takes type \"usermode\"",
                               value));
    return wrong(setting, fmt::format("unknown type \"{}\": use \"usermode\"", value));
  }

  Status transport(const Parser::Setting& setting) {
    if (Status read = text(setting, file_.transport); !read) return read;
    const std::string& value = file_.transport;
    if (value == "tcp" || value == "verbs" || value == "auto") return {};
    return wrong(setting,
                 fmt::format("transport \"{}\": use \"tcp\", \"verbs\" or \"auto\"", value));
  }

  Status policy(const Parser::Setting& setting) {
    if (Status read = text(setting, file_.policy); !read) return read;
    if (xenstore::from_word<xenstore::Policy>(file_.policy)) return {};
    return wrong(setting, fmt::format("policy \"{}\": use {}", file_.policy,
                                      xenstore::words_of<xenstore::Policy>()));
  }

  Status memory(const Parser::Setting& setting) {
    std::uint64_t mib = 0;
    if (Status read = number(setting, 1, std::uint64_t{1} << 30, mib); !read) return read;
    file_.memory = mib << 20;
    return {};
  }

  Status vcpus(const Parser::Setting& setting) {
    std::uint64_t count = 0;
    if (Status read = number(setting, 1, 1024, count); !read) return read;
    file_.vcpus = static_cast<int>(count);
    return {};
  }

  Status environment(const Parser::Setting& setting) {
    if (Status read = list(setting, file_.environment); !read) return read;
    for (const std::string& entry : file_.environment)
      if (entry.find('=') == std::string::npos || entry.front() == '=')
        return wrong(setting, fmt::format("environment \"{}\": write NAME=VALUE", entry));
    return {};
  }

  Status prefetch(const Parser::Setting& setting) {
    if (const auto* word = std::get_if<std::string>(&setting.value.what);
        word != nullptr && *word == "off") {
      file_.prefetch = 0;
      return {};
    }
    std::uint64_t pages = 0;
    if (Status read = number(setting, 0, dsm::kMostPrefetch, pages); !read) return read;
    file_.prefetch = static_cast<unsigned>(pages);
    return {};
  }

  Status without(const Parser::Setting& setting) {
    if (Status read = list(setting, file_.without); !read) return read;
    if (const auto known = dsm::features_of(file_.without); !known)
      return wrong(setting, known.error().message);
    return {};
  }

  const Parser& parser_;
  DomainFile& file_;
  std::set<std::string> seen_;
};

}  // namespace

Result<DomainFile> parse_domain_file(std::string_view text, const std::string& file) {
  Parser parser(text, file);
  const auto settings = parser.parse();
  if (!settings) return settings.error();
  DomainFile result;
  Reader reader(parser, result);
  for (const Parser::Setting& setting : *settings)
    if (Status taken = reader.take(setting); !taken) return taken.error();
  if (Status finished = reader.finish(file); !finished) return finished.error();
  return result;
}

}  // namespace xenspan::cli
