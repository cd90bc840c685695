#include "dom0-daemon/daemon/tls.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <ctime>
#include <string_view>

namespace xenspan::daemon {
namespace {

constexpr const char* kCipher = "TLS_AES_256_GCM_SHA384";
constexpr unsigned char kCipherId[] = {0x13, 0x02};  // the same, as in RFC 8446 B.4
constexpr std::string_view kContext = "xenspan";
constexpr std::string_view kIdentityPrefix = "xenspan:";

// Where an SSL object remembers the TlsContext, and the identity a stranger offered.
int context_slot() {
  static const int slot = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return slot;
}

void free_text(void*, void* text, CRYPTO_EX_DATA*, int, long, void*) {
  delete static_cast<std::string*>(text);
}

int foreign_slot() {
  static const int slot = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, free_text);
  return slot;
}

TlsContext* context_of(SSL* ssl) {
  return static_cast<TlsContext*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), context_slot()));
}

}  // namespace

TlsContext::TlsContext(const ClusterKey& key) : key_(key), key_id_(key.id()) {}

TlsContext::~TlsContext() {
  SSL_SESSION_free(session_);
  SSL_CTX_free(context_);
  OPENSSL_cleanse(key_.bytes.data(), key_.bytes.size());
}

Result<std::unique_ptr<TlsContext>> TlsContext::make(const ClusterKey& key) {
  std::unique_ptr<TlsContext> context(new TlsContext(key));
  if (Status prepared = context->prepare(); !prepared) return prepared.error();
  return context;
}

Status TlsContext::prepare() {
  const auto failed = [] {
    char text[160];
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    return Error{EPROTO, fmt::format("OpenSSL cannot set up TLS 1.3 with {}: {}: check the "
                                     "machine's OpenSSL policy (openssl.cnf)",
                                     kCipher, text)};
  };
  context_ = SSL_CTX_new(TLS_method());
  if (context_ == nullptr || SSL_CTX_set_min_proto_version(context_, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(context_, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(context_, kCipher) != 1 ||
      SSL_CTX_set_num_tickets(context_, 0) != 1 ||
      SSL_CTX_set_ex_data(context_, context_slot(), this) != 1)
    return failed();
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  // A server that verifies peers must name its context, or it takes no session, not even a
  // pre-shared one; a client's session must be of the same context.
  const auto* context_name = reinterpret_cast<const unsigned char*>(kContext.data());
  SSL_CTX_set_session_id_context(context_, context_name, kContext.size());
  // No certificate store is loaded: a server that answers with a certificate is refused.
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_psk_use_session_callback(context_, &TlsContext::use_session);
  SSL_CTX_set_psk_find_session_callback(context_, &TlsContext::find_session);

  const std::unique_ptr<SSL, decltype(&SSL_free)> any(SSL_new(context_), &SSL_free);
  const SSL_CIPHER* cipher = any ? SSL_CIPHER_find(any.get(), kCipherId) : nullptr;
  session_ = SSL_SESSION_new();
  if (cipher == nullptr || session_ == nullptr ||
      SSL_SESSION_set1_master_key(session_, key_.bytes.data(), key_.bytes.size()) != 1 ||
      SSL_SESSION_set1_id_context(session_, context_name, kContext.size()) != 1 ||
      SSL_SESSION_set_cipher(session_, cipher) != 1 ||
      SSL_SESSION_set_protocol_version(session_, TLS1_3_VERSION) != 1)
    return failed();
  return {};
}

SSL* TlsContext::new_connection(bool server) {
  SSL* ssl = SSL_new(context_);
  if (ssl == nullptr) return nullptr;
  if (server)
    SSL_set_accept_state(ssl);
  else
    SSL_set_connect_state(ssl);
  return ssl;
}

// OpenSSL frees the session it is given after use, so each handshake gets a copy. A copy is made
// young: a session older than its time limit (304 s) is refused, a pre-shared one, too, and then a
// daemon that has run for five minutes would accept nobody.
SSL_SESSION* TlsContext::session() const {
  SSL_SESSION* copy = SSL_SESSION_dup(session_);
  if (copy != nullptr) SSL_SESSION_set_time(copy, ::time(nullptr));
  return copy;
}

int TlsContext::use_session(SSL* ssl, const EVP_MD* digest, const unsigned char** id,
                            size_t* length, SSL_SESSION** session) {
  TlsContext* self = context_of(ssl);
  *session = nullptr;
  // Asked again for another digest after a HelloRetryRequest: this key is for SHA-384 only.
  if (digest != nullptr &&
      digest != SSL_CIPHER_get_handshake_digest(SSL_SESSION_get0_cipher(self->session_)))
    return 1;
  static thread_local std::string identity;
  identity = std::string(kIdentityPrefix) + self->key_id_;
  *id = reinterpret_cast<const unsigned char*>(identity.data());
  *length = identity.size();
  *session = self->session();
  return *session != nullptr;
}

int TlsContext::find_session(SSL* ssl, const unsigned char* id, size_t length,
                             SSL_SESSION** session) {
  TlsContext* self = context_of(ssl);
  const std::string_view offered(reinterpret_cast<const char*>(id), length);
  *session = nullptr;
  if (offered == std::string(kIdentityPrefix) + self->key_id_) {
    *session = self->session();
    return *session != nullptr;
  }
  // Without a session OpenSSL goes on to certificates, finds none and refuses. Remember a plausible
  // id for the log.
  const bool plausible =
      offered.starts_with(kIdentityPrefix) && offered.size() == kIdentityPrefix.size() + 16 &&
      std::all_of(offered.begin() + kIdentityPrefix.size(), offered.end(),
                  [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
  if (plausible && SSL_get_ex_data(ssl, foreign_slot()) == nullptr)
    SSL_set_ex_data(ssl, foreign_slot(), new std::string(offered.substr(kIdentityPrefix.size())));
  return 1;
}

bool TlsContext::authenticated(SSL* ssl) {
  return SSL_is_init_finished(ssl) && SSL_version(ssl) == TLS1_3_VERSION &&
         SSL_session_reused(ssl) == 1;
}

std::string TlsContext::foreign_key(SSL* ssl) {
  const auto* text = static_cast<std::string*>(SSL_get_ex_data(ssl, foreign_slot()));
  return text == nullptr ? std::string{} : *text;
}

}  // namespace xenspan::daemon
