#include "dom0-daemon/cli/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "base/log.h"
#include "dom0-daemon/cli/failure.h"
#include "dom0-daemon/daemon/size_text.h"

namespace xenspan::cli {
namespace {

using daemon::array_field;
using daemon::number_or;
using daemon::size_text;
using daemon::text_or;

Result<Json> ask(const DaemonChoice& choice, const Json& request) {
  auto client = Client::connect(choice);
  if (!client) return client.error();
  return client->ask(request);
}

void print_json(const Json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, Json::error_handler_t::replace));
}

bool is_over(const Json& domain) {
  const std::string state = text_or(domain, "state", "");
  return state == "ended" || state == "failed";
}

// "a:2 b:2 c:failed": how many vCPUs each host runs, or that it was lost or could not join.
std::string members_text(const Json& domain) {
  std::string text;
  if (const Json* members = array_field(domain, "members"))
    for (const Json& member : *members) {
      const std::string state = text_or(member, "state", "");
      text +=
          fmt::format("{}{}:{}", text.empty() ? "" : " ", text_or(member, "host", "?"),
                      state == "failed" ? state : std::to_string(number_or(member, "vcpus", 0)));
    }
  return text;
}

std::vector<std::vector<std::string>> vcpu_rows(const Json& domains) {
  std::vector<std::vector<std::string>> rows = {{"NAME", ">VCPU", "HOST", ">CORE", ">THREADS"}};
  for (const Json& domain : domains) {
    const Json* vcpus = array_field(domain, "vcpus");
    for (std::size_t i = 0; vcpus != nullptr && i < vcpus->size(); ++i) {
      const Json& vcpu = (*vcpus)[i];
      rows.push_back({text_or(domain, "name", "?"), fmt::format("{}", i),
                      text_or(vcpu, "host", "?"), fmt::format("{}", number_or(vcpu, "core", 0)),
                      fmt::format("{}", number_or(vcpu, "threads", 0))});
    }
  }
  return rows;
}

std::string age_text(std::uint64_t created) {
  const auto now = static_cast<std::uint64_t>(std::time(nullptr));
  const std::uint64_t seconds = now > created ? now - created : 0;
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  return fmt::format("{}h{:02}m", seconds / 3600, seconds % 3600 / 60);
}

std::string core_list(const Json& host) {
  std::string text;
  if (const auto cores = daemon::numbers_field(host, "cores"))
    for (std::size_t i = 0; i < cores->size();) {
      std::size_t last = i;
      while (last + 1 < cores->size() && (*cores)[last + 1] == (*cores)[last] + 1) ++last;
      text += text.empty() ? "" : ",";
      text += last == i ? fmt::format("{}", (*cores)[i])
                        : fmt::format("{}-{}", (*cores)[i], (*cores)[last]);
      i = last + 1;
    }
  return text.empty() ? "-" : text;
}

}  // namespace

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  const auto heading = [](const std::string& cell) {
    return cell.starts_with('>') ? cell.substr(1) : cell;
  };
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], heading(row[i]).size());
    }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool right = rows.front()[i].starts_with('>');
      const std::string cell = &row == &rows.front() ? heading(row[i]) : row[i];
      line += right ? fmt::format("{:>{}}  ", cell, widths[i])
                    : fmt::format("{:<{}}  ", cell, widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

int list_domains(const DaemonChoice& choice, const ListOptions& options) {
  const auto answer = ask(choice, {{"op", "list"}});
  if (!answer) return fail(answer.error());
  Json shown = Json::array();
  if (const Json* domains = array_field(*answer, "domains"))
    for (const Json& domain : *domains)
      if (options.all || !is_over(domain)) shown.push_back(domain);
  if (options.json) {
    print_json(shown);
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "UUID", "STATE", "HOME", ">VCPUS", ">MEMORY", "HOSTS", "USER", ">AGE", "COMMAND"}};
  if (options.vcpus)
    for (const char* heading : {"TRANSPORT", "POLICY", "LAST MOVE"})
      rows.front().push_back(heading);
  if (options.all) rows.front().push_back("RESULT");
  for (const Json& domain : shown) {
    const Json* vcpus = array_field(domain, "vcpus");
    rows.push_back({text_or(domain, "name", "?"), text_or(domain, "uuid", "?").substr(0, 8),
                    text_or(domain, "state", "?"), text_or(domain, "home", "?"),
                    fmt::format("{}", vcpus == nullptr ? 0 : vcpus->size()),
                    size_text(number_or(domain, "memory", 0)), members_text(domain),
                    text_or(domain, "user", "?"), age_text(number_or(domain, "created", 0)),
                    text_or(domain, "command", "").substr(0, 40)});
    if (options.vcpus) {
      const std::string moved = text_or(domain, "last_move", "");
      rows.back().push_back(text_or(domain, "transport", "?"));
      rows.back().push_back(text_or(domain, "policy", "?"));
      rows.back().push_back(moved.empty() ? "-" : moved);
    }
    if (!options.all) continue;
    const std::string error = text_or(domain, "error", "");
    const auto status = daemon::number_field(domain, "exit_status");
    rows.back().push_back(!status         ? ""
                          : error.empty() ? fmt::format("status {}", *status)
                                          : fmt::format("status {}: {}", *status, error));
  }
  fmt::print("{}", table(rows));
  if (options.vcpus) fmt::print("\n{}", table(vcpu_rows(shown)));
  return 0;
}

int list_hosts(const DaemonChoice& choice, bool json) {
  const auto answer = ask(choice, {{"op", "hosts"}});
  if (!answer) return fail(answer.error());
  const Json* hosts = array_field(*answer, "hosts");
  if (hosts == nullptr) return fail({EBADMSG, "xenspand sent no list of hosts"});
  if (json) {
    print_json(*hosts);
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATE", "ADDRESS", "CORES", ">VCPUS",
                                                 ">MEMORY", ">FREE", "RDMA", "XENSPAN", "NOTE"}};
  for (const Json& host : *hosts) {
    // Numbers of a host that is not connected are old.
    const bool known = text_or(host, "state", "") == "up";
    const std::string address = text_or(host, "address", "?");
    rows.push_back({text_or(host, "name", "?"), text_or(host, "state", "?"),
                    fmt::format("{}:{}", address, number_or(host, "port", 0)), core_list(host),
                    known ? fmt::format("{}", number_or(host, "vcpus", 0)) : "-",
                    known ? size_text(number_or(host, "memory", 0)) : "-",
                    known ? size_text(number_or(host, "memory_free", 0)) : "-",
                    known && !text_or(host, "rdma", "").empty() ? text_or(host, "rdma", "") : "-",
                    known ? text_or(host, "version", "") : "-",
                    daemon::flag_field(host, "here") ? "this host" : text_or(host, "error", "")});
  }
  fmt::print("{}", table(rows));
  return 0;
}

int destroy_domain(const DaemonChoice& choice, const std::string& domain) {
  const auto answer = ask(choice, {{"op", "destroy"}, {"domain", domain}});
  return answer ? 0 : fail(answer.error());
}

int show_stats(const DaemonChoice& choice, const std::string& domain) {
  const auto answer = ask(choice, {{"op", "stats"}, {"domain", domain}});
  if (!answer) return fail(answer.error());
  print_json(answer->contains("stats") ? (*answer)["stats"] : Json());
  return 0;
}

int migrate_vcpu(const DaemonChoice& choice, const MigrateOptions& options) {
  constexpr std::chrono::seconds kMoveLimit{30};
  auto client = Client::connect(choice);
  if (!client) return fail(client.error());
  const auto answer = client->ask({{"op", "migrate"},
                                   {"domain", options.domain},
                                   {"vcpu", options.vcpu},
                                   {"host", options.host},
                                   {"alone", options.alone}},
                                  kMoveLimit);
  if (!answer) return fail(answer.error());
  const std::uint64_t shared = number_or(*answer, "shared", 0);
  const std::uint64_t waiting = number_or(*answer, "waiting", 0);
  const std::string place = fmt::format(
      "vCPU {} of {} is on host {}{}", options.vcpu, options.domain, text_or(*answer, "host", "?"),
      answer->contains("core")  // Xen chooses it for a domain of its own
          ? fmt::format(", core {}", number_or(*answer, "core", 0))
          : "");
  if (daemon::flag_field(*answer, "here")) {
    fmt::print("{} already\n", place);
    return 0;
  }
  fmt::print("{}{}: {} threads, {:.1f} ms\n", place,
             shared > 0 ? fmt::format(" (shared with {} more)", shared) : "",
             number_or(*answer, "threads", 0),
             static_cast<double>(number_or(*answer, "us", 0)) / 1000);
  if (waiting > 0)
    log::warning("{} of them are in calls that nothing interrupts: they follow when these return",
                 waiting);
  return 0;
}

}  // namespace xenspan::cli
