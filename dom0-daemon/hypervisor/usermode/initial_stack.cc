#include "dom0-daemon/hypervisor/usermode/initial_stack.h"

#include <elf.h>

#include <cstring>

namespace xenspan::hypervisor::usermode {
namespace {

constexpr char kPlatform[] = "x86_64";

std::uint64_t string_bytes(const std::vector<std::string>& strings) {
  std::uint64_t bytes = 0;
  for (const std::string& string : strings) bytes += string.size() + 1;
  return bytes;
}

// Lays strings out from `address` upwards and notes where each one is.
class Strings {
 public:
  explicit Strings(std::uint64_t address) : next_(address) {}
  std::uint64_t add(const void* data, std::size_t bytes) {
    const auto* from = static_cast<const std::uint8_t*>(data);
    bytes_.insert(bytes_.end(), from, from + bytes);
    const std::uint64_t at = next_;
    next_ += bytes;
    return at;
  }
  std::uint64_t add(const std::string& string) { return add(string.c_str(), string.size() + 1); }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  std::uint64_t next_;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace

std::uint64_t stack_bytes_for(const StackContents& contents) {
  const std::uint64_t pointers = contents.arguments.size() + contents.environment.size() + 3;
  return string_bytes(contents.arguments) + string_bytes(contents.environment) +
         contents.executable.size() + 1 + pointers * sizeof(std::uint64_t);
}

StackImage build_stack(const StackContents& contents, std::uint64_t top) {
  // From high to low, as Linux has it: 8 zero bytes, executable's name, environment strings,
  // argument strings (the two without a gap: programs that set their title rely on it), random
  // bytes, platform, and below them the words.
  const std::uint64_t bytes_above =
      contents.random.size() + sizeof kPlatform + string_bytes(contents.arguments) +
      string_bytes(contents.environment) + contents.executable.size() + 1 + 8;
  const std::uint64_t strings_start = (top - bytes_above) & ~std::uint64_t{15};
  Strings strings(strings_start);
  const std::uint64_t random = strings.add(contents.random.data(), contents.random.size());
  const std::uint64_t platform = strings.add(kPlatform, sizeof kPlatform);

  std::vector<std::uint64_t> words{contents.arguments.size()};
  for (const std::string& argument : contents.arguments) words.push_back(strings.add(argument));
  words.push_back(0);
  for (const std::string& variable : contents.environment) words.push_back(strings.add(variable));
  words.push_back(0);
  const std::uint64_t executable = strings.add(contents.executable);

  const std::size_t auxv_start = words.size();
  const auto entry = [&words](std::uint64_t type, std::uint64_t value) {
    words.push_back(type);
    words.push_back(value);
  };
  for (const auto& [type, value] : contents.numbers) entry(type, value);
  entry(AT_RANDOM, random);
  entry(AT_EXECFN, executable);
  entry(AT_PLATFORM, platform);
  entry(AT_NULL, 0);

  StackImage image;
  image.sp = (strings_start - words.size() * sizeof words[0]) & ~std::uint64_t{15};
  image.bytes.resize(top - image.sp);
  std::memcpy(image.bytes.data(), words.data(), words.size() * sizeof words[0]);
  std::memcpy(image.bytes.data() + (strings_start - image.sp), strings.bytes().data(),
              strings.bytes().size());
  image.auxv.assign(reinterpret_cast<const char*>(words.data() + auxv_start),
                    (words.size() - auxv_start) * sizeof words[0]);
  return image;
}

}  // namespace xenspan::hypervisor::usermode
