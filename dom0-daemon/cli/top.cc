#include "dom0-daemon/cli/top.h"

#include <curses.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <clocale>
#include <csignal>
#include <thread>

#include "base/log.h"
#include "dom0-daemon/cli/tables.h"
#include "dom0-daemon/cli/top_fight.h"
#include "dom0-daemon/daemon/size_text.h"

namespace xenspan::cli {
namespace {

using daemon::array_field;
using daemon::number_or;
using daemon::size_text;
using daemon::text_or;

constexpr std::uint64_t kPageBytes = 4096;

// What is added up over hosts: rates per second, and things there are now.
struct Row {
  double cpu = 0;  // percent of one core
  double reads = 0, writes = 0, upgrades = 0;
  double sent = 0, received = 0;  // bytes a second
  std::uint64_t threads = 0, pages = 0;

  void add(const Row& other) {
    cpu += other.cpu;
    reads += other.reads;
    writes += other.writes;
    upgrades += other.upgrades;
    sent += other.sent;
    received += other.received;
    threads += other.threads;
    pages += other.pages;
  }
};

double rate(const Json& now, const Json& before, const char* name, double seconds) {
  const std::uint64_t a = number_or(before, name, 0);
  const std::uint64_t b = number_or(now, name, 0);
  return seconds > 0 && b > a ? static_cast<double>(b - a) / seconds : 0;
}

Row row_of(const Json& counters, const TopSample* before, double now) {
  Row row;
  row.threads = number_or(counters, "threads", 0);
  row.pages = number_or(counters, "pages", 0);
  if (before == nullptr) return row;
  const double seconds = now - before->when;
  const auto per_second = [&](const char* name) {
    return rate(counters, before->counters, name, seconds);
  };
  row.cpu = per_second("cpu_us") / 10000;  // microseconds a second are 1/10000 of a percent
  row.reads = per_second("faults_read");
  row.writes = per_second("faults_write");
  row.upgrades = per_second("faults_upgrade");
  row.sent = per_second("bytes_sent");
  row.received = per_second("bytes_received");
  return row;
}

std::vector<std::string> cells(const std::string& name, const std::string& state,
                               std::uint64_t vcpus, const Row& row) {
  return {name,
          state,
          fmt::format("{:.1f}", row.cpu),
          fmt::format("{}", vcpus),
          fmt::format("{}", row.threads),
          size_text(row.pages * kPageBytes),
          fmt::format("{:.0f}", row.reads),
          fmt::format("{:.0f}", row.writes),
          fmt::format("{:.0f}", row.upgrades),
          size_text(static_cast<std::uint64_t>(row.sent)),
          size_text(static_cast<std::uint64_t>(row.received))};
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The terminal's screen, given back when this ends.
class Screen {
 public:
  Screen() {
    std::setlocale(LC_ALL, "");
    initscr();
    cbreak();
    noecho();
    curs_set(0);
  }
  ~Screen() { endwin(); }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  void draw(const std::string& title, const std::vector<std::string>& lines) {
    erase();
    mvaddnstr(0, 0, title.c_str(), COLS);
    for (std::size_t i = 0; i < lines.size() && static_cast<int>(i) + 2 < LINES; ++i) {
      if (i == 0) attron(A_REVERSE);
      mvaddnstr(static_cast<int>(i) + 2, 0, lines[i].c_str(), COLS);
      if (i == 0) attroff(A_REVERSE);
    }
    refresh();
  }
  // True when the user wants to leave.
  bool wait(double seconds) {
    timeout(static_cast<int>(seconds * 1000));
    const int key = getch();
    return key == 'q' || key == 'Q' || key == 27;
  }
};

std::string title(const Json& answer, std::size_t running) {
  return fmt::format("xenspan top - host {}, {} domain{} running - q: quit",
                     text_or(answer, "host", "?"), running, running == 1 ? "" : "s");
}

std::size_t count_running(const Json& domains) {
  return static_cast<std::size_t>(
      std::count_if(domains.begin(), domains.end(),
                    [](const Json& each) { return text_or(each, "state", "") == "running"; }));
}

// A line for each running domain whose vCPUs fight. Domains of other users tell nothing.
std::vector<std::string> fight_lines(Client& client, const Json& domains,
                                     std::map<std::string, FightSample>& before) {
  std::vector<std::string> lines;
  std::map<std::string, FightSample> samples;
  for (const Json& domain : domains) {
    const std::string uuid = text_or(domain, "uuid", "");
    if (text_or(domain, "state", "") != "running") continue;
    const auto answer = client.ask({{"op", "stats"}, {"domain", uuid}});
    const Json* stats = answer ? daemon::object_field(*answer, "stats") : nullptr;
    if (stats == nullptr) continue;
    FightSample sample = fight_sample_of(*stats, seconds_now());
    const auto found = before.find(uuid);
    if (found != before.end()) {
      std::string line = fight_line(text_or(domain, "name", "?"), *stats, sample, found->second);
      if (!line.empty()) lines.push_back(std::move(line));
    }
    samples[uuid] = std::move(sample);
  }
  before = std::move(samples);
  return lines;
}

}  // namespace

std::vector<std::string> top_lines(const Json& domains, double now, TopSamples& before) {
  TopSamples samples;
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATE", ">CPU(%)", ">VCPUS", ">THREADS",
                                                 ">MEM", ">READ/s", ">WRITE/s", ">UPGR/s", ">TX/s",
                                                 ">RX/s"}};
  for (const Json& domain : domains) {
    const std::string state = text_or(domain, "state", "?");
    const Json* members = array_field(domain, "members");
    const Json* vcpus = array_field(domain, "vcpus");
    if (state == "ended" || state == "failed" || members == nullptr) continue;
    Row total;
    std::vector<std::vector<std::string>> lines;
    for (const Json& member : *members) {
      const std::string host = text_or(member, "host", "?");
      const std::string key = text_or(domain, "uuid", "") + " " + host;
      const Json* counters = daemon::object_field(member, "counters");
      const Json own = counters == nullptr ? Json::object() : *counters;
      const auto found = before.find(key);
      const Row row = row_of(own, found == before.end() ? nullptr : &found->second, now);
      total.add(row);
      lines.push_back(
          cells("  " + host, text_or(member, "state", "?"), number_or(member, "vcpus", 0), row));
      samples[key] = {now, own};
    }
    rows.push_back(
        cells(text_or(domain, "name", "?"), state, vcpus == nullptr ? 0 : vcpus->size(), total));
    rows.insert(rows.end(), lines.begin(), lines.end());
  }
  before = std::move(samples);
  std::vector<std::string> text;
  const std::string whole = table(rows);
  for (std::size_t begin = 0; begin < whole.size();) {
    const std::size_t end = whole.find('\n', begin);
    text.push_back(whole.substr(begin, end - begin));
    begin = end + 1;
  }
  return text;
}

int show_top(const DaemonChoice& choice, const TopOptions& options) {
  if (!options.batch && (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))) {
    log::error("top needs a terminal: use `xenspan top --batch` in scripts");
    return 1;
  }
  auto client = Client::connect(choice);
  if (!client) {
    log::error("{}", client.error().message);
    return 1;
  }
  TopSamples samples;
  std::map<std::string, FightSample> fights;
  std::unique_ptr<Screen> screen;
  if (!options.batch) screen = std::make_unique<Screen>();
  // The first look has no rates yet: a batch prints from the second on.
  const int first = options.batch ? 1 : 0;
  for (int look = 0; options.iterations == 0 || look < options.iterations + first; ++look) {
    const auto answer = client->ask({{"op", "list"}});
    const Json* domains = answer ? array_field(*answer, "domains") : nullptr;
    if (domains == nullptr) {
      screen.reset();
      log::error("{}", answer ? "xenspand sent no list of domains" : answer.error().message);
      return 1;
    }
    auto lines = top_lines(*domains, seconds_now(), samples);
    const auto fighting = fight_lines(*client, *domains, fights);
    lines.insert(lines.end(), fighting.begin(), fighting.end());
    if (screen) {
      screen->draw(title(*answer, count_running(*domains)), lines);
      if (screen->wait(options.delay)) return 0;
      continue;
    }
    if (look >= first) {
      for (const std::string& line : lines) fmt::print("{}\n", line);
      fmt::print("\n");
      std::fflush(stdout);
    }
    if (options.iterations == 0 || look + 1 < options.iterations + first)
      std::this_thread::sleep_for(std::chrono::duration<double>(options.delay));
  }
  return 0;
}

}  // namespace xenspan::cli
