// dom0-daemon/hypervisor/usermode/io_calls.h: a remote thread's packed system calls, as the home
// executes them, and the home's answers, as the remote slice unpacks them. Lengths are checked
// before use: an answer is no longer than a frame may be, and unpacking writes only what the call
// may write.
//
// Input: what it is, which call, its flags, its arguments (three bytes each and a shift), then the
// rest of the request or answer.
#include "dom0-daemon/hypervisor/usermode/home_ops.h"
#include "dom0-daemon/hypervisor/usermode/io/wire.h"
#include "dom0-daemon/hypervisor/usermode/io_calls.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/calls.h"
#include "tests/fuzz/demand.h"

namespace xenspan::hypervisor::usermode {
namespace {

const HomeIo kNoDescriptors{nullptr, 0};

std::uint64_t take_argument(fuzz::Bytes& in) {
  const auto shift = in.take<std::uint8_t>();
  const std::uint64_t value = in.take<std::uint16_t>();
  // Small numbers, huge ones, and addresses in the guest's memory.
  if (shift % 4 == 0) return value;
  if (shift % 4 == 1) return fuzz::SmallMemory::kStart + value;
  return value << (shift % 64);
}

std::int64_t result_of(const Packet& answer) {
  DEMAND(answer.size() >= sizeof(io::AnswerHeader) && answer.size() <= kMaxFrame);
  std::int64_t result = 0;
  std::memcpy(&result, answer.data(), sizeof result);
  return result;
}

void execute_any(const io::RequestHeader& header, fuzz::Bytes& in) {
  Packet request(sizeof header), answer;
  std::memcpy(request.data(), &header, sizeof header);
  const auto rest = in.take_bytes(in.left());
  request.insert(request.end(), rest.begin(), rest.end());
  execute(kNoDescriptors, request, answer);
  result_of(answer);
}

void unpack_any(const Call& call, fuzz::Bytes& in) {
  static fuzz::SmallMemory memory;
  Progress progress;
  progress.done = in.take<std::uint16_t>();
  unpack(call, in.take_bytes(in.left()), memory, progress);
}

// What the guest's own packing makes is well-formed: the home does not call it nonsense.
void pack_and_execute(const Call& call, fuzz::Bytes& in) {
  static fuzz::SmallMemory memory;
  const auto bytes = in.take_bytes(in.left());
  memory.write(fuzz::SmallMemory::kStart, bytes.data(),
               std::min(bytes.size(), fuzz::SmallMemory::kBytes));
  Packet request, answer;
  Progress progress;
  if (pack(call, progress, memory, request) != 0) return;
  DEMAND(request.size() >= sizeof(io::RequestHeader) && request.size() <= kMaxFrame);
  execute(kNoDescriptors, request, answer);
  result_of(answer);
  unpack(call, answer, memory, progress);
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan;
  using namespace xenspan::hypervisor::usermode;
  fuzz::Bytes in(data, size);
  const auto kind = in.take<std::uint8_t>();
  io::RequestHeader header;
  header.number = fuzz::kLookingCalls[in.take<std::uint8_t>() % std::size(fuzz::kLookingCalls)];
  header.flags = in.take<std::uint8_t>();
  for (std::uint64_t& arg : header.args) arg = take_argument(in);
  if (kind == 255) header.magic ^= 1;
  switch (kind % 3) {
    case 0: execute_any(header, in); break;
    case 1: unpack_any({header.number, header.args}, in); break;
    default: pack_and_execute({header.number, header.args}, in); break;
  }
  return 0;
}
