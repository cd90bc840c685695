// wire_watch INTERFACE TEXT FILE: counts the packets on INTERFACE that hold TEXT, until SIGTERM.
//
// FILE appears when it watches, and has the number of packets at the end: "all N with-text M".
// Needs CAP_NET_RAW; run it in the host's network namespace.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <string_view>
#include <vector>

namespace {

volatile sig_atomic_t over = 0;

int fail(const char* what) {
  std::perror(what);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  std::signal(SIGTERM, [](int) { over = 1; });
  const int socket = ::socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  if (socket < 0) return fail("socket");
  const int bytes = 64 << 20;
  ::setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(argv[1]));
  if (address.sll_ifindex == 0) return fail(argv[1]);
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail("bind");
  std::ofstream(argv[3]) << "watching\n";
  std::vector<char> packet(65536);
  unsigned long all = 0, with_text = 0;
  // After the signal, what has arrived before it is still looked at.
  for (;;) {
    pollfd ready{socket, POLLIN, 0};
    if (::poll(&ready, 1, over ? 0 : 100) <= 0) {
      if (over) break;
      continue;
    }
    const ssize_t got = ::recv(socket, packet.data(), packet.size(), MSG_DONTWAIT);
    if (got <= 0) continue;
    ++all;
    const std::string_view seen(packet.data(), static_cast<std::size_t>(got));
    if (seen.find(argv[2]) != std::string_view::npos) ++with_text;
  }
  std::ofstream(argv[3]) << "all " << all << " with-text " << with_text << "\n";
  return 0;
}
