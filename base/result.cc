#include "base/result.h"

#include <cstring>

namespace xenspan {

Error system_error(int code, const std::string& what, const std::string& remedy) {
  char buffer[128];
  std::string text = what + ": " + strerror_r(code, buffer, sizeof buffer);
  if (!remedy.empty()) text += ": " + remedy;
  return Error{code, std::move(text)};
}

}  // namespace xenspan
