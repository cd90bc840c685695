// The exchange by which two slices convince each other that they belong to the same domain, as
// bytes and proofs.
//
//   connector -> acceptor  Hello      64 bytes: what it wants to be, and its nonce
//   acceptor -> connector  Challenge  80 bytes: its nonce, and its proof over Hello and Challenge
//   connector -> acceptor  Proof      32 bytes: its proof over Hello and Challenge
//   acceptor -> connector  Verdict     8 bytes: accepted, or why not
//
// A proof is HMAC-SHA256 with the domain's secret over a word for the role and the bytes so far, so
// neither side can be made to produce the other's. Strangers learn the version and nothing else:
// the other refusals come after the proof. Internal to transport/tcp. Pure functions except for the
// TLS ones; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "dsm-rdma/transport/tcp/secure_stream.h"

namespace xenspan::dsm::tcp::handshake {

inline constexpr std::size_t kHelloBytes = 64, kChallengeBytes = 80, kProofBytes = 32,
                             kVerdictBytes = 8;
inline constexpr std::uint16_t kVersion = 1;

using Hello = std::array<std::uint8_t, kHelloBytes>;
using Challenge = std::array<std::uint8_t, kChallengeBytes>;
using Proof = std::array<std::uint8_t, kProofBytes>;
using Verdict = std::array<std::uint8_t, kVerdictBytes>;

enum class Code : std::uint8_t {
  kAccepted = 0,
  kWrongEpoch = 1,
  kWrongHost = 2,
  kWrongEncryption = 3,
  kNotReady = 4,  // nobody takes streams of this purpose yet
  kCount
};
const char* text_of(Code code);

Hello make_hello(const StreamId& id);
// nullptr, or what is wrong; kOtherVersion when only the version differs.
extern const char* const kOtherVersion;
const char* read_hello(const Hello& hello, StreamId& id);

Challenge make_challenge(const Secret& secret, const Hello& hello);
Challenge version_challenge();  // without a proof: says which version is spoken here
// nullptr, or what is wrong.
const char* check_challenge(const Secret& secret, const Hello& hello, const Challenge& challenge);

Proof make_proof(const Secret& secret, const Hello& hello, const Challenge& challenge);
bool check_proof(const Secret& secret, const Hello& hello, const Challenge& challenge,
                 const Proof& proof);

Verdict make_verdict(Code code);
bool read_verdict(const Verdict& verdict, Code& code);

// The key of an encrypted stream: the same function under a third role.
Proof derive_key(const Secret& secret, const Hello& hello, const Challenge& challenge);

// TLS 1.3 with a key derived from the exchange, over a socket; nullptr when OpenSSL refuses. The
// caller frees it.
ssl_st* make_tls(int socket, bool acceptor, const Secret& secret, const Hello& hello,
                 const Challenge& challenge);
// One step of the TLS handshake, which never blocks: 0 when done, POLLIN or POLLOUT to wait for, or
// -1.
int step_tls(ssl_st* ssl);
void free_tls(ssl_st* ssl);

}  // namespace xenspan::dsm::tcp::handshake
