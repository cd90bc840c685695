#include "dom0-daemon/hypervisor/usermode/io_calls.h"

#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/io/shapes.h"

namespace xenspan::hypervisor::usermode {

bool handles(std::int64_t number) { return io::describe(number, {}) != nullptr; }

int pack(const Call& call, const Progress& progress, GuestMemory& memory, Packet& request) {
  const io::CallInfo* info = io::describe(call.number, call.args);
  if (info == nullptr) return -ENOSYS;
  switch (info->shape) {
    case io::Shape::kGeneric: return io::pack_generic(*info, call, memory, request);
    case io::Shape::kTransfer: return io::pack_transfer(call, progress, memory, request);
    case io::Shape::kMessage: return io::pack_message(call, progress, memory, request);
    case io::Shape::kRefused: break;
  }
  return -info->refusal;
}

void execute(const HomeIo& home, const Packet& request, Packet& answer) {
  io::RequestHeader header;
  if (request.size() < sizeof header) return io::answer_only(answer, -EINVAL);
  std::memcpy(&header, request.data(), sizeof header);
  if (header.magic != io::kMagic) return io::answer_only(answer, -EINVAL);
  const io::CallInfo* info = io::describe(header.number, header.args);
  if (info == nullptr) return io::answer_only(answer, -ENOSYS);
  switch (info->shape) {
    case io::Shape::kGeneric: return io::execute_generic(home, *info, header, request, answer);
    case io::Shape::kTransfer: return io::execute_transfer(home, header, request, answer);
    case io::Shape::kMessage: return io::execute_message(home, header, request, answer);
    case io::Shape::kRefused: break;
  }
  io::answer_only(answer, -info->refusal);
}

Next unpack(const Call& call, const Packet& answer, GuestMemory& memory, Progress& progress) {
  const io::CallInfo* info = io::describe(call.number, call.args);
  if (info == nullptr || answer.size() < sizeof(io::AnswerHeader)) {
    progress.result = info == nullptr ? -ENOSYS : -EIO;
    return Next::kFinished;
  }
  switch (info->shape) {
    case io::Shape::kGeneric: io::unpack_generic(*info, call, answer, memory, progress); break;
    case io::Shape::kTransfer: return io::unpack_transfer(call, answer, memory, progress);
    case io::Shape::kMessage: return io::unpack_message(call, answer, memory, progress);
    case io::Shape::kRefused: progress.result = -info->refusal; break;
  }
  return Next::kFinished;
}

}  // namespace xenspan::hypervisor::usermode
