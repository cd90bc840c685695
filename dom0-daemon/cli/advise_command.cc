#include "dom0-daemon/cli/advise_command.h"

#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/log.h"
#include "dom0-daemon/cli/advice.h"

namespace xenspan::cli {
namespace {

Result<Json> read_stats(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf()))
    return system_error(errno, "cannot read " + path, "name a file of `xenspan run --stats=FILE`");
  auto stats = daemon::parse_object(text.str());
  if (!stats) return Error{stats.error().code, path + ": " + stats.error().message};
  return stats;
}

Result<Json> ask_stats(const DaemonChoice& choice, const std::string& domain) {
  auto client = Client::connect(choice);
  if (!client) return client.error();
  auto answer = client->ask({{"op", "stats"}, {"domain", domain}});
  if (!answer) return answer;
  return answer->contains("stats") ? (*answer)["stats"] : Json::object();
}

}  // namespace

int advise(const DaemonChoice& choice, const AdviseOptions& options) {
  if (options.domain.empty() == options.file.empty()) {
    log::error("advise needs a running domain or --from FILE, and not both: see xenspan(1)");
    return 2;
  }
  const auto stats =
      options.file.empty() ? ask_stats(choice, options.domain) : read_stats(options.file);
  if (!stats) {
    log::error("{}", stats.error().message);
    return 1;
  }
  const auto advice = advice_from(*stats);
  if (!advice) {
    log::error("{}{}", options.file.empty() ? "" : options.file + ": ", advice.error().message);
    return 1;
  }
  if (options.json) {
    fmt::print("{}\n", to_json(*advice).dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("{}", advice_text(*advice));
  }
  return 0;
}

}  // namespace xenspan::cli
