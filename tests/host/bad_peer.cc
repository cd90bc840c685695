// bad_peer ADDRESS PORT KIND: a peer that no correct host is. Connects, says what KIND is, and
// waits for the other side to close. Exit status 0: it closed within ten seconds without having
// answered application data; 1: it did not; 2: usage.
//
//   noise      random bytes
//   zeros      a megabyte of zeros
//   long       a frame or message header whose length is as large as it can be
//   hello      the start of a TLS handshake, then nothing more than its closing
//   silent     nothing at all (the other side must give up by itself)
//   nocert     a whole TLS 1.3 handshake without a certificate, then a frame
//   wrongcert  the same with a self-signed certificate of its own
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "base/unique_fd.h"

namespace {

using xenspan::UniqueFd;

constexpr int kPatienceMs = 10'000;

UniqueFd connect_to(const char* address, const char* port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
      ::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    std::perror("bad_peer: connect");
    fd.reset();
  }
  return fd;
}

void say(int fd, const std::string& bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // closed on us: what we are here to see
    sent += static_cast<std::size_t>(n);
  }
}

std::string noise(std::size_t bytes) {
  std::mt19937 random(42);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// A ClientHello's record and handshake header, announcing more than follows.
std::string client_hello_start() {
  return std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + noise(32);
}

bool closes(int fd) {
  for (;;) {
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, kPatienceMs) <= 0) return false;
    char bytes[4096];
    if (::recv(fd, bytes, sizeof bytes, 0) <= 0)
      return true;  // its TLS alert or banner may come first
  }
}

struct TlsContext {
  TlsContext() : context(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
  }
  ~TlsContext() { SSL_CTX_free(context); }
  void own_certificate() const {
    EVP_PKEY* const key = EVP_EC_gen("P-256");
    X509* const certificate = X509_new();
    X509_set_version(certificate, 2);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("intruder"), -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    X509_set_pubkey(certificate, key);
    X509_sign(certificate, key, EVP_sha256());
    SSL_CTX_use_certificate(context, certificate);
    SSL_CTX_use_PrivateKey(context, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  SSL_CTX* context;
};

// TLS 1.3 lets a client believe that the handshake is over before the server has looked at its
// certificate, so only what comes back tells: an alert or the end, never a byte of data.
bool refused_over_tls(int fd, bool with_certificate) {
  const TlsContext tls;
  if (with_certificate) tls.own_certificate();
  SSL* const ssl = SSL_new(tls.context);
  SSL_set_fd(ssl, fd);
  bool refused = true;
  if (SSL_connect(ssl) == 1) {
    const std::string frame = std::string("\x00\x00\x00\x12", 4) + "{\"type\":\"hello\"}\n\n";
    SSL_write(ssl, frame.data(), static_cast<int>(frame.size()));
    char bytes[4096];
    refused = SSL_read(ssl, bytes, sizeof bytes) <= 0;
  }
  SSL_free(ssl);
  return refused;
}

bool refused(int fd, const std::string& kind) {
  if (kind == "nocert" || kind == "wrongcert") return refused_over_tls(fd, kind == "wrongcert");
  if (kind == "noise") say(fd, noise(65536));
  if (kind == "zeros") say(fd, std::string(1 << 20, '\0'));
  if (kind == "long") say(fd, std::string(8, '\xff') + noise(56));
  if (kind == "hello") {
    say(fd, client_hello_start());
    ::shutdown(fd, SHUT_WR);
  }
  return closes(fd);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc == 4 ? argv[3] : "";
  const std::string kinds = " noise zeros long hello silent nocert wrongcert ";
  if (kind.empty() || kinds.find(" " + kind + " ") == std::string::npos) {
    std::fprintf(stderr, "usage: bad_peer ADDRESS PORT KIND: one of%s\n", kinds.c_str());
    return 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  ::alarm(30);  // a read over TLS has no limit of its own
  const UniqueFd fd = connect_to(argv[1], argv[2]);
  if (!fd) return 2;
  if (refused(fd.get(), kind)) return 0;
  std::fprintf(stderr, "bad_peer: %s was not refused\n", kind.c_str());
  return 1;
}
