#include "dom0-daemon/daemon/names.h"

#include <openssl/rand.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/log.h"

namespace xenspan::daemon {
namespace {

bool is_word(std::string_view name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= 63 && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), good);
}

}  // namespace

bool is_host_name(std::string_view name) { return is_word(name); }

bool is_domain_name(std::string_view name) { return is_word(name); }

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (dash ? c != '-' : !hex) return false;
  }
  return true;
}

std::string random_hex(std::size_t bytes) {
  std::vector<unsigned char> raw(bytes);
  // Without randomness no secret can be made: going on would be worse than ending.
  if (RAND_bytes(raw.data(), static_cast<int>(raw.size())) != 1) {
    log::error("OpenSSL gives no random bytes: check that /dev/urandom works");
    std::abort();
  }
  std::string text;
  for (const unsigned char byte : raw) text += fmt::format("{:02x}", byte);
  return text;
}

std::string random_uuid() {
  std::string hex = random_hex(16);
  hex[12] = '4';
  hex[16] = "89ab"[static_cast<unsigned char>(hex[16]) & 3];
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" +
         hex.substr(16, 4) + "-" + hex.substr(20);
}

std::string local_host_name() {
  utsname names{};
  uname(&names);
  const std::string node = names.nodename;
  return node.substr(0, node.find('.'));
}

}  // namespace xenspan::daemon
