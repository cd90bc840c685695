// TLS 1.3 with the cluster key as an external pre-shared key (RFC 8446, 4.2.11; RFC 9258 speaks of
// its care).
//
// There are no certificates: a handshake succeeds only when both ends hold the key, so
// authentication is mutual. Session tickets and resumption are off. Each connection still has its
// own Diffie-Hellman secret (psk_dhe_ke). A shared key cannot tell the ends apart, so an attacker
// could reflect a host's own connection back to it; Cluster refuses a hello that carries its own
// name. Threading: the loop's thread. The context outlives the SSL objects made from it.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "base/result.h"
#include "dom0-daemon/daemon/cluster_key.h"

namespace xenspan::daemon {

class TlsContext {
 public:
  static Result<std::unique_ptr<TlsContext>> make(const ClusterKey& key);
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  ~TlsContext();

  // A new connection's state; the caller (or the bufferevent it is given to) frees it. nullptr: no
  // memory.
  SSL* new_connection(bool server);
  // After the handshake: whether the cluster key, and nothing else, authenticated the peer.
  static bool authenticated(SSL* ssl);
  // After a failed handshake at the server: the peer offered this other key's id; "" when it
  // offered none.
  static std::string foreign_key(SSL* ssl);

  const std::string& key_id() const { return key_id_; }

 private:
  TlsContext(const ClusterKey& key);
  Status prepare();
  SSL_SESSION* session() const;  // a new reference
  static int use_session(SSL* ssl, const EVP_MD* digest, const unsigned char** id, size_t* length,
                         SSL_SESSION** session);
  static int find_session(SSL* ssl, const unsigned char* id, size_t length, SSL_SESSION** session);

  ClusterKey key_;
  std::string key_id_;
  SSL_CTX* context_ = nullptr;
  SSL_SESSION* session_ = nullptr;
};

}  // namespace xenspan::daemon
