// A connected TCP socket whose peer falls silent ends by itself: what was sent is acknowledged in
// time, or probes are answered. Any thread.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>

namespace xenspan::dsm {

inline void end_when_silent(int socket, unsigned dead_after_ms) {
  const int on = 1, seconds = std::max(1, static_cast<int>(dead_after_ms / 1000));
  const int idle = std::max(1, seconds / 2), probes = 3,
            interval = std::max(1, (seconds - idle) / probes);
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_after_ms, sizeof dead_after_ms);
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

}  // namespace xenspan::dsm
