#include "dsm-rdma/transport/tcp/handshake.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <cstdlib>
#include <cstring>

namespace xenspan::dsm::tcp::handshake {
namespace {

constexpr std::uint32_t kHelloMagic = 0x48505358;      // "XSPH"
constexpr std::uint32_t kChallengeMagic = 0x43505358;  // "XSPC"
constexpr std::uint32_t kVerdictMagic = 0x56505358;    // "XSPV"
constexpr std::uint8_t kFlagEncrypt = 1;
constexpr std::size_t kNonceBytes = 32;

struct HelloLayout {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint8_t purpose, flags, from, to;
  std::uint16_t zero;
  std::uint32_t epoch, tag;
  std::uint8_t reserved[12];
  std::uint8_t nonce[kNonceBytes];
};
static_assert(sizeof(HelloLayout) == kHelloBytes && offsetof(HelloLayout, nonce) == 32);

struct ChallengeLayout {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint8_t other_version, zero;
  std::uint8_t reserved[8];
  std::uint8_t nonce[kNonceBytes];
  std::uint8_t proof[kProofBytes];
};
static_assert(sizeof(ChallengeLayout) == kChallengeBytes && offsetof(ChallengeLayout, proof) == 48);

struct VerdictLayout {
  std::uint32_t magic;
  std::uint8_t code;
  std::uint8_t reserved[3];
};
static_assert(sizeof(VerdictLayout) == kVerdictBytes);

void fill_random(std::uint8_t* to, std::size_t bytes) {
  // A nonce that is not random would make proofs replayable, so there is nothing sensible to go on
  // with.
  if (RAND_bytes(to, static_cast<int>(bytes)) != 1) std::abort();
}

bool all_zero(const std::uint8_t* from, std::size_t bytes) {
  std::uint8_t any = 0;
  for (std::size_t i = 0; i < bytes; ++i) any |= from[i];
  return any == 0;
}

// HMAC-SHA256(secret, role || hello || the first `bytes` of challenge).
Proof prove(const Secret& secret, const char* role, const Hello& hello, const Challenge& challenge,
            std::size_t bytes) {
  std::array<std::uint8_t, 32 + kHelloBytes + kChallengeBytes> text{};
  std::strncpy(reinterpret_cast<char*>(text.data()), role, 31);
  std::memcpy(text.data() + 32, hello.data(), kHelloBytes);
  std::memcpy(text.data() + 32 + kHelloBytes, challenge.data(), bytes);
  Proof proof{};
  unsigned length = 0;
  if (HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), text.data(),
           32 + kHelloBytes + bytes, proof.data(), &length) == nullptr ||
      length != kProofBytes) {
    std::abort();  // OpenSSL without SHA-256: nothing can be authenticated
  }
  return proof;
}

constexpr char kAcceptorRole[] = "xenspan acceptor";
constexpr char kConnectorRole[] = "xenspan connector";
constexpr char kKeyRole[] = "xenspan key";

}  // namespace

const char* const kOtherVersion = "it speaks another version of the protocol";

const char* text_of(Code code) {
  switch (code) {
    case Code::kAccepted: return "accepted";
    case Code::kWrongEpoch: return "it is in another membership epoch";
    case Code::kWrongHost: return "the host numbers do not match its own";
    case Code::kWrongEncryption: return "the encrypt setting differs";
    case Code::kNotReady: return "nothing there takes this kind of connection yet";
    case Code::kCount: break;
  }
  return "?";
}

Hello make_hello(const StreamId& id) {
  HelloLayout out{};
  out.magic = htole32(kHelloMagic);
  out.version = htole16(kVersion);
  out.purpose = id.purpose;
  out.flags = id.encrypted ? kFlagEncrypt : 0;
  out.from = id.from;
  out.to = id.to;
  out.epoch = htole32(id.epoch);
  out.tag = htole32(id.tag);
  fill_random(out.nonce, sizeof out.nonce);
  Hello hello;
  std::memcpy(hello.data(), &out, sizeof out);
  return hello;
}

const char* read_hello(const Hello& hello, StreamId& id) {
  HelloLayout in;
  std::memcpy(&in, hello.data(), sizeof in);
  if (le32toh(in.magic) != kHelloMagic) return "it does not speak this protocol";
  if (le16toh(in.version) != kVersion) return kOtherVersion;
  if ((in.flags & ~kFlagEncrypt) != 0 || in.zero != 0 ||
      !all_zero(in.reserved, sizeof in.reserved)) {
    return "its greeting has unknown fields";
  }
  id.purpose = in.purpose;
  id.encrypted = (in.flags & kFlagEncrypt) != 0;
  id.from = in.from;
  id.to = in.to;
  id.epoch = le32toh(in.epoch);
  id.tag = le32toh(in.tag);
  return nullptr;
}

Challenge make_challenge(const Secret& secret, const Hello& hello) {
  ChallengeLayout out{};
  out.magic = htole32(kChallengeMagic);
  out.version = htole16(kVersion);
  fill_random(out.nonce, sizeof out.nonce);
  Challenge challenge;
  std::memcpy(challenge.data(), &out, sizeof out);
  const Proof proof =
      prove(secret, kAcceptorRole, hello, challenge, offsetof(ChallengeLayout, proof));
  std::memcpy(challenge.data() + offsetof(ChallengeLayout, proof), proof.data(), proof.size());
  return challenge;
}

Challenge version_challenge() {
  ChallengeLayout out{};
  out.magic = htole32(kChallengeMagic);
  out.version = htole16(kVersion);
  out.other_version = 1;
  Challenge challenge;
  std::memcpy(challenge.data(), &out, sizeof out);
  return challenge;
}

const char* check_challenge(const Secret& secret, const Hello& hello, const Challenge& challenge) {
  ChallengeLayout in;
  std::memcpy(&in, challenge.data(), sizeof in);
  if (le32toh(in.magic) != kChallengeMagic) return "it does not speak this protocol";
  if (in.other_version != 0 || le16toh(in.version) != kVersion) return kOtherVersion;
  if (in.zero != 0 || !all_zero(in.reserved, sizeof in.reserved))
    return "its answer has unknown fields";
  const Proof expected =
      prove(secret, kAcceptorRole, hello, challenge, offsetof(ChallengeLayout, proof));
  if (CRYPTO_memcmp(expected.data(), in.proof, kProofBytes) != 0)
    return "it does not know the domain's secret";
  return nullptr;
}

Proof make_proof(const Secret& secret, const Hello& hello, const Challenge& challenge) {
  return prove(secret, kConnectorRole, hello, challenge, kChallengeBytes);
}

bool check_proof(const Secret& secret, const Hello& hello, const Challenge& challenge,
                 const Proof& proof) {
  const Proof expected = make_proof(secret, hello, challenge);
  return CRYPTO_memcmp(expected.data(), proof.data(), kProofBytes) == 0;
}

Verdict make_verdict(Code code) {
  VerdictLayout out{};
  out.magic = htole32(kVerdictMagic);
  out.code = static_cast<std::uint8_t>(code);
  Verdict verdict;
  std::memcpy(verdict.data(), &out, sizeof out);
  return verdict;
}

bool read_verdict(const Verdict& verdict, Code& code) {
  VerdictLayout in;
  std::memcpy(&in, verdict.data(), sizeof in);
  if (le32toh(in.magic) != kVerdictMagic || in.code >= static_cast<std::uint8_t>(Code::kCount) ||
      !all_zero(in.reserved, sizeof in.reserved)) {
    return false;
  }
  code = static_cast<Code>(in.code);
  return true;
}

Proof derive_key(const Secret& secret, const Hello& hello, const Challenge& challenge) {
  return prove(secret, kKeyRole, hello, challenge, kChallengeBytes);
}

}  // namespace xenspan::dsm::tcp::handshake
