// Bytes from outside: frames between hosts, the control socket, the domain file, the cluster key,
// statistics.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <random>

#include "dom0-daemon/cli/client.h"
#include "dom0-daemon/cli/domain_file.h"
#include "dom0-daemon/cli/top.h"
#include "dom0-daemon/daemon/cluster_key.h"
#include "dom0-daemon/daemon/control_socket.h"
#include "dom0-daemon/daemon/framing.h"
#include "dom0-daemon/daemon/stats_report.h"

namespace xenspan::daemon {
namespace {

class Folder {
 public:
  Folder() { path_ = mkdtemp(name_); }
  ~Folder() {
    const std::string command = "rm -rf '" + path_ + "'";
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
  std::string operator/(const char* file) const { return path_ + "/" + file; }

 private:
  char name_[32] = "/tmp/xenspan-test.XXXXXX";
  std::string path_;
};

TEST(Frames, ArriveWholeHoweverTheyAreCut) {
  const std::string bytes =
      *make_frame({{"op", "one"}}) + *make_frame({{"op", "two"}, {"text", std::string(5000, 'x')}});
  for (const std::size_t step : {1u, 3u, 7u, 100000u}) {
    FrameReader reader;
    std::vector<std::string> ops;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      reader.append(std::string_view(bytes).substr(at, step));
      for (;;) {
        const auto message = reader.next();
        ASSERT_TRUE(message.ok());
        if (!message->has_value()) break;
        ops.push_back(text_or(**message, "op", "?"));
      }
    }
    EXPECT_EQ(ops, (std::vector<std::string>{"one", "two"}));
  }
}

TEST(Frames, WhatIsNoMessageIsAnError) {
  const std::string cases[] = {
      std::string("\xff\xff\xff\xff", 4),     std::string("\x00\x10\x00\x01", 4),
      std::string("\x00\x00\x00\x02[]", 6),   std::string("\x00\x00\x00\x00", 4),
      std::string("\x00\x00\x00\x03{\"x", 7), "GET / HTTP/1.1\r\n\r\n"};
  for (const std::string& bytes : cases) {
    FrameReader reader;
    reader.append(bytes);
    EXPECT_FALSE(reader.next().ok());
  }
  EXPECT_FALSE(make_frame({{"text", std::string(kMaxFrame, 'x')}}).ok());
}

TEST(Frames, NoiseNeverPassesAsAMessage) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    FrameReader reader;
    std::string noise(64, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    noise[0] = noise[1] = noise[2] = 0;  // a short length, so that the JSON parser sees the rest
    reader.append(noise);
    const auto message = reader.next();
    EXPECT_TRUE(!message.ok() || !message->has_value());
  }
}

TEST(ClusterKey, IsMadeOnceAndReadBack) {
  const Folder folder;
  const std::string path = folder / "key";
  ASSERT_TRUE(make_cluster_key(path).ok());
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto key = read_cluster_key(path);
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(key->id().size(), 16u);
  EXPECT_FALSE(make_cluster_key(path).ok());
  EXPECT_EQ(read_cluster_key(path)->bytes, key->bytes);
  ASSERT_TRUE(make_cluster_key(folder / "other").ok());
  EXPECT_NE(read_cluster_key(folder / "other")->id(), key->id());
}

TEST(ClusterKey, BadFilesAreRefused) {
  const Folder folder;
  const std::string path = folder / "key";
  EXPECT_NE(read_cluster_key(path).error().message.find("xenspan cluster-key"), std::string::npos);
  for (const char* text : {"", "xenspan cluster key v1\n", "xenspan cluster key v1\nabcd\n",
                           "xenspan cluster key v2\n"}) {
    std::ofstream(path, std::ios::trunc) << text;
    chmod(path.c_str(), 0600);
    EXPECT_FALSE(read_cluster_key(path).ok()) << text;
  }
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_TRUE(make_cluster_key(path).ok());
  chmod(path.c_str(), 0644);
  EXPECT_NE(read_cluster_key(path).error().message.find("chmod 600"), std::string::npos);
}

// Answers "echo" with what it read from the descriptors that came along.
class EchoHandler : public ControlSocket::Handler {
 public:
  void client_message(ClientId client, const User& user, const Json& message,
                      std::vector<UniqueFd> fds) override {
    Json answer{{"ok", true}, {"uid", user.uid}, {"said", text_or(message, "say", "")}};
    for (const UniqueFd& fd : fds) {
      char byte = '?';
      EXPECT_EQ(read(fd.get(), &byte, 1), 1);
      answer["read"].push_back(std::string(1, byte));
    }
    socket->send(client, answer);
  }
  void client_closed(ClientId) override {
    ++closed;
    loop->stop();
  }

  EventLoop* loop = nullptr;
  ControlSocket* socket = nullptr;
  int closed = 0;
};

class ControlSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    handler_.loop = &loop_;
    auto opened = ControlSocket::open(loop_, path_, handler_);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    socket_ = std::move(*opened);
    handler_.socket = socket_.get();
  }
  // Runs the loop until the client is gone or for a moment.
  void serve(std::chrono::milliseconds limit = std::chrono::milliseconds(200)) {
    const Timer timer(loop_, limit, [this] { loop_.stop(); });
    loop_.run();
  }

  Folder folder_;
  const std::string path_ = folder_ / "control";
  EventLoop loop_;
  EchoHandler handler_;
  std::unique_ptr<ControlSocket> socket_;
};

TEST_F(ControlSocketTest, LinesAndDescriptorsStayTogether) {
  auto client = cli::Client::connect_to(path_);
  ASSERT_TRUE(client.ok());
  int first[2], second[2];
  ASSERT_EQ(pipe(first), 0);
  ASSERT_EQ(pipe(second), 0);
  ASSERT_EQ(write(first[1], "A", 1), 1);
  ASSERT_EQ(write(second[1], "B", 1), 1);
  ASSERT_TRUE(client->send({{"say", "1"}, {"fds", {0}}}, {first[0]}).ok());
  ASSERT_TRUE(client->send({{"say", "none"}}).ok());
  ASSERT_TRUE(client->send({{"say", "2"}, {"fds", {0}}}, {second[0]}).ok());
  serve();
  const char* expected[][2] = {{"1", "[\"A\"]"}, {"none", "null"}, {"2", "[\"B\"]"}};
  for (const auto& [said, read] : expected) {
    const auto answer = client->receive(std::chrono::seconds(5));
    ASSERT_TRUE(answer.ok());
    EXPECT_EQ(text_or(*answer, "said", ""), said);
    EXPECT_EQ(answer->value("read", Json()).dump(), read);
    EXPECT_EQ(number_field(*answer, "uid"), getuid());
  }
  for (const int fd : {first[0], first[1], second[0], second[1]}) close(fd);
}

TEST_F(ControlSocketTest, MalformedClientsAreDropped) {
  for (const std::string& bytes :
       {std::string("noise\n"), std::string("[1]\n"), std::string("{\"fds\":[0]}\n")}) {
    const int before = handler_.closed;
    const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    serve(std::chrono::seconds(10));
    EXPECT_EQ(handler_.closed, before + 1) << bytes;
  }
  // And the others are still served.
  auto client = cli::Client::connect_to(path_);
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE(client->send({{"say", "hello"}}).ok());
  serve();
  EXPECT_EQ(text_or(*client->receive(std::chrono::seconds(5)), "said", ""), "hello");
}

TEST(DomainFile, TakesTheXlSyntax) {
  const auto file = cli::parse_domain_file(
      "# a job\nname = 'job' ; type=\"usermode\"\nmemory = 0x200\nvcpus = \"4\"\n"
      "hosts = [ \"a\", # first\n  'b',\n]\ncommand = [ \"/bin/echo\", \"a \\\"b\\\"\\x41\\n\" ]\n"
      "environment = [\"X=1\"]\ndirectory = \"/tmp\"\nprefetch = 'off'\nwithout = ['hold']\n"
      "transport = \"auto\"\n",
      "job.cfg");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->name, "job");
  EXPECT_EQ(file->memory, std::uint64_t{512} << 20);
  EXPECT_EQ(file->vcpus, 4);
  EXPECT_EQ(file->hosts, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(file->command, (std::vector<std::string>{"/bin/echo", "a \"b\"A\n"}));
  EXPECT_EQ(file->directory, "/tmp");
  EXPECT_EQ(file->prefetch, 0u);
  EXPECT_EQ(file->without, std::vector<std::string>{"hold"});
  EXPECT_EQ(file->transport, "auto");
}

TEST(DomainFile, ErrorsNameTheLine) {
  const std::string good = "name='x'\ntype='usermode'\ncommand=['y']\n";
  ASSERT_TRUE(cli::parse_domain_file(good, "f").ok());
  const std::pair<const char*, const char*> cases[] = {
      {"vpcus = 2", "unknown key vpcus"},
      {"vcpus = 0", "from 1 to 1024"},
      {"vcpus = []", "number"},
      {"memory = 'much'", "number"},
      {"name = 'y'", "set twice"},
      {"hosts = 'a'", "list"},
      {"hosts = ['a' 'b']", "comma"},
      {"hosts = ['a'", "]"},
      {"directory = \"/x", "closing"},
      {"directory", "'='"},
      {"directory = '/x' 'y'", "one setting"},
      {"= 5", "KEY"},
      {"directory = '\\q'", "escape"},
      {"environment = ['X']", "NAME=VALUE"},
      {"stdin = 5", "string"},
      {"prefetch = 16", "from 0 to 15"},
      {"without = ['speed']", "no feature \"speed\""},
      {"without = 'hold'", "list"},
      {"transport = 'rdma'", "verbs"},
  };
  for (const auto& [line, words] : cases) {
    const auto file = cli::parse_domain_file(good + line + "\n", "f");
    ASSERT_FALSE(file.ok()) << line;
    EXPECT_EQ(file.error().message.rfind("f:4", 0),
              file.error().message.rfind("f:5", 0) == 0 ? std::string::npos : 0u)
        << file.error().message;
    EXPECT_NE(file.error().message.find(words), std::string::npos) << file.error().message;
  }
  EXPECT_NE(cli::parse_domain_file("name='x'\ntype='hvm'\ncommand=['y']", "f")
                .error()
                .message.find("xl create"),
            std::string::npos);
  EXPECT_NE(cli::parse_domain_file("name='x'\ntype='usermode'\n", "f")
                .error()
                .message.find("command is missing"),
            std::string::npos);
}

TEST(DomainFile, AnyBytesEndInAResult) {
  std::mt19937 random(11);
  const std::string alphabet = "nametypecommand='\"[],;#\\x41 \n=059\t";
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (int i = 0; i < 40; ++i) text += alphabet[random() % alphabet.size()];
    EXPECT_FALSE(cli::parse_domain_file(text, "f").ok());
  }
}

Json kind(std::uint64_t count, Json histogram) {
  return {{"count", count},
          {"latency_ns",
           {{"p50", 0}, {"p99", 0}, {"max", 10 * count}, {"histogram", std::move(histogram)}}}};
}

TEST(Stats, SumsCountsHistogramsAndHotPages) {
  std::map<std::string, Json> by_host;
  by_host["a"] = {{"faults", {{"read", kind(3, {{100, 2}, {200, 1}})}}},
                  {"bytes_sent", 10},
                  {"hottest", {{{"gfn", 7}, {"faults", 5}}, {{"gfn", 8}, {"faults", 6}}}}};
  by_host["b"] = {{"faults", {{"read", kind(97, {{100, 97}})}}},
                  {"bytes_sent", 20},
                  {"hottest", {{{"gfn", 7}, {"faults", 4}}, {{"gfn", "x"}}}}};
  const auto pages = hottest_pages(by_host);
  ASSERT_EQ(pages.size(), 2u);
  EXPECT_EQ(pages[0].gfn, 7u);
  EXPECT_EQ(pages[0].faults, 9u);
  EXPECT_EQ(pages[0].by_host.at("b"), 4u);
  const Json report = stats_report(DomainRecord{}, by_host, pages, {"counter"});
  EXPECT_EQ(report["faults"]["read"]["count"], 100);
  EXPECT_EQ(report["faults"]["read"]["latency_ns"]["p50"], 100);
  EXPECT_EQ(report["faults"]["read"]["latency_ns"]["p99"], 200);
  EXPECT_EQ(report["faults"]["read"]["latency_ns"]["max"], 970);
  EXPECT_EQ(report["faults"]["write"]["count"], 0);
  EXPECT_EQ(report["bytes_sent"], 30);
  EXPECT_EQ(report["hottest"][0]["name"], "counter");
  EXPECT_EQ(report["hottest"][1]["name"], "");
}

TEST(Top, ShowsRatesBetweenTwoLooks) {
  const auto domains = [](std::uint64_t cpu, std::uint64_t faults) {
    return Json::array({{{"uuid", "u"},
                         {"name", "job"},
                         {"state", "running"},
                         {"vcpus", {1, 2}},
                         {"members",
                          {{{"host", "a"},
                            {"state", "active"},
                            {"vcpus", 2},
                            {"counters", {{"cpu_us", cpu}, {"faults_read", faults}}}}}}}});
  };
  cli::TopSamples samples;
  cli::top_lines(domains(0, 0), 10.0, samples);
  const auto lines = cli::top_lines(domains(3'000'000, 500), 12.0, samples);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_NE(lines[1].find("150.0"), std::string::npos) << lines[1];
  EXPECT_NE(lines[1].find(" 250 "), std::string::npos) << lines[1];
}

}  // namespace
}  // namespace xenspan::daemon
