// TLS 1.3 with a pre-shared key over a socket, through a BIO of our own: OpenSSL's would raise
// SIGPIPE and would block.
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "dsm-rdma/transport/tcp/handshake.h"

namespace xenspan::dsm::tcp::handshake {

namespace {

constexpr char kIdentity[] = "xenspan";

int socket_of(BIO* bio) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio)));
}

int bio_write(BIO* bio, const char* from, int bytes) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent =
      ::send(socket_of(bio), from, static_cast<std::size_t>(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int bio_read(BIO* bio, char* to, int bytes) {
  BIO_clear_retry_flags(bio);
  const ssize_t got = ::recv(socket_of(bio), to, static_cast<std::size_t>(bytes), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

long bio_ctrl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

BIO_METHOD* bio_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "xenspan socket");
    if (made != nullptr) {
      BIO_meth_set_write(made, bio_write);
      BIO_meth_set_read(made, bio_read);
      BIO_meth_set_ctrl(made, bio_ctrl);
    }
    return made;
  }();
  return method;
}

const Proof* key_of(SSL* ssl) { return static_cast<const Proof*>(SSL_get_app_data(ssl)); }

unsigned connector_key(SSL* ssl, const char*, char* identity, unsigned identity_bytes,
                       unsigned char* key, unsigned key_bytes) {
  if (identity_bytes < sizeof kIdentity || key_bytes < kProofBytes || key_of(ssl) == nullptr)
    return 0;
  std::memcpy(identity, kIdentity, sizeof kIdentity);
  std::memcpy(key, key_of(ssl)->data(), kProofBytes);
  return kProofBytes;
}

unsigned acceptor_key(SSL* ssl, const char* identity, unsigned char* key, unsigned key_bytes) {
  if (std::strcmp(identity, kIdentity) != 0 || key_bytes < kProofBytes || key_of(ssl) == nullptr)
    return 0;
  std::memcpy(key, key_of(ssl)->data(), kProofBytes);
  return kProofBytes;
}

SSL_CTX* make_context(bool acceptor) {
  SSL_CTX* context = SSL_CTX_new(acceptor ? TLS_server_method() : TLS_client_method());
  if (context == nullptr) return nullptr;
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  // The hash of a pre-shared key without a session is SHA-256; other suites could never be chosen.
  SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
  SSL_CTX_set_num_tickets(context, 0);  // no resumption, and no records that nobody asked for
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);  // one recv a record instead of two
  if (acceptor) {
    SSL_CTX_set_psk_server_callback(context, acceptor_key);
  } else {
    SSL_CTX_set_psk_client_callback(context, connector_key);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);  // no certificates: the key is the proof
  }
  return context;
}

SSL_CTX* context_for(bool acceptor) {
  static SSL_CTX* const contexts[2] = {make_context(false), make_context(true)};
  return contexts[acceptor ? 1 : 0];
}

void forget_key(SSL* ssl) {
  auto* key = static_cast<Proof*>(SSL_get_app_data(ssl));
  if (key == nullptr) return;
  SSL_set_app_data(ssl, nullptr);
  OPENSSL_cleanse(key->data(), key->size());
  delete key;
}

}  // namespace

ssl_st* make_tls(int socket, bool acceptor, const Secret& secret, const Hello& hello,
                 const Challenge& challenge) {
  SSL_CTX* context = context_for(acceptor);
  BIO* bio = context != nullptr && bio_method() != nullptr ? BIO_new(bio_method()) : nullptr;
  SSL* ssl = bio != nullptr ? SSL_new(context) : nullptr;
  if (ssl == nullptr) {
    BIO_free(bio);
    return nullptr;
  }
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket)));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_app_data(ssl, new Proof(derive_key(secret, hello, challenge)));
  if (acceptor) {
    SSL_set_accept_state(ssl);
  } else {
    SSL_set_connect_state(ssl);
  }
  return ssl;
}

int step_tls(ssl_st* ssl) {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl);
  if (result == 1) {
    const bool by_key =
        SSL_session_reused(ssl) == 1;  // how OpenSSL marks a handshake that used the pre-shared key
    forget_key(ssl);
    return by_key ? 0 : -1;
  }
  switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ: return POLLIN;
    case SSL_ERROR_WANT_WRITE: return POLLOUT;
    default: ERR_clear_error(); return -1;
  }
}

void free_tls(ssl_st* ssl) {
  if (ssl == nullptr) return;
  forget_key(ssl);
  SSL_free(ssl);
}

}  // namespace xenspan::dsm::tcp::handshake
