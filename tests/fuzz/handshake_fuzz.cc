// dsm-rdma/transport/tcp/handshake.h: what a stranger says before it is let in. A greeting or
// verdict that is accepted says nothing but what is read from it, and a challenge or proof with any
// bit changed is refused.
//
// Input: 64 bytes of a greeting, 8 of a verdict, then 80 and 32 that are XORed over a right
// challenge and a right proof.
#include <algorithm>
#include <cstring>

#include "dsm-rdma/transport/tcp/handshake.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"

namespace xenspan::dsm::tcp::handshake {
namespace {

void check_hello(const Hello& hello) {
  StreamId id;
  if (const char* wrong = read_hello(hello, id)) {
    DEMAND(*wrong != '\0');
    return;
  }
  Hello again = make_hello(id);
  constexpr std::size_t kNonce = 32;  // the second half, new in each greeting
  std::copy(hello.begin() + kNonce, hello.end(), again.begin() + kNonce);
  DEMAND(again == hello);
}

void check_verdict(const Verdict& verdict) {
  Code code{};
  if (!read_verdict(verdict, code)) return;
  DEMAND(code < Code::kCount);
  DEMAND(*text_of(code) != '?');
  DEMAND(make_verdict(code) == verdict);
}

template <typename Array>
bool apply(Array& to, const Array& mask) {
  bool changed = false;
  for (std::size_t i = 0; i < to.size(); ++i) {
    to[i] ^= mask[i];
    changed = changed || mask[i] != 0;
  }
  return changed;
}

}  // namespace
}  // namespace xenspan::dsm::tcp::handshake

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan::dsm::tcp;
  using namespace xenspan::dsm::tcp::handshake;
  xenspan::fuzz::Bytes in(data, size);
  const auto hello = in.take<Hello>();
  check_hello(hello);
  check_verdict(in.take<Verdict>());
  Secret secret{};
  secret.fill(7);
  const auto challenge_mask = in.take<Challenge>();
  const auto proof_mask = in.take<Proof>();
  Challenge challenge = make_challenge(secret, hello);
  Proof proof = make_proof(secret, hello, challenge);
  const bool other_proof = apply(proof, proof_mask);
  DEMAND(check_proof(secret, hello, challenge, proof) == !other_proof);
  const bool other_challenge = apply(challenge, challenge_mask);
  DEMAND((check_challenge(secret, hello, challenge) == nullptr) == !other_challenge);
  return 0;
}
