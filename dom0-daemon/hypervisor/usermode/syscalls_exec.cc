// execve(2) by a guest of one thread: the home replaces the program, this thread starts it.
#include <fcntl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::size_t kMaxString = 128 << 10;  // MAX_ARG_STRLEN, include/uapi/linux/binfmts.h
constexpr std::size_t kMaxStrings = 1 << 20;   // bytes of all of them: what a request may have

void put_string(Packet& packet, const std::string& text) {
  const auto bytes = static_cast<std::uint32_t>(text.size());
  const auto* length = reinterpret_cast<const std::uint8_t*>(&bytes);
  packet.insert(packet.end(), length, length + sizeof bytes);
  packet.insert(packet.end(), text.begin(), text.end());
}

}  // namespace

// Appends a vector of strings as their number and each with its length. 0 or -errno.
std::int64_t GuestThread::pack_strings(std::uint64_t address, Packet& packet) {
  const std::size_t count_at = packet.size();
  packet.resize(count_at + sizeof(std::uint32_t));
  std::uint32_t count = 0;
  std::string text;
  for (; address != 0; ++count) {
    std::uint64_t pointer = 0;
    if (!read(&pointer, address + count * sizeof pointer, sizeof pointer)) return -EFAULT;
    if (pointer == 0) break;
    if (!read_string(text, pointer, kMaxString)) return text.size() > kMaxString ? -E2BIG : -EFAULT;
    put_string(packet, text);
    if (packet.size() > kMaxStrings) return -E2BIG;
  }
  std::memcpy(packet.data() + count_at, &count, sizeof count);
  return 0;
}

std::int64_t GuestThread::exec_call(const Call& call, ucontext_t& context, bool& finished) {
  std::array<std::uint64_t, 3> args{call.args[0], call.args[1], call.args[2]};
  if (call.number == SYS_execveat) {
    args = {call.args[1], call.args[2], call.args[3]};
  }
  std::string path;
  if (!read_string(path, args[0], PATH_MAX))
    return path.size() > PATH_MAX ? -ENAMETOOLONG : -EFAULT;
  // Empty: the program is the descriptor itself (AT_EMPTY_PATH).
  if (call.number == SYS_execveat && !path.starts_with('/') &&
      (path.empty() || static_cast<int>(call.args[0]) != AT_FDCWD))
    return refuse_process("exec by a descriptor", "name the program by its path");
  request_.clear();
  put_string(request_, path);
  for (const std::uint64_t vector : {args[1], args[2]})
    if (const std::int64_t error = pack_strings(vector, request_); error != 0) return error;
  ask(Op::kExec, request_, answer_);
  Reader in(answer_);
  const auto result = in.get<std::int64_t>();
  const auto start = in.get<StartThread>();
  if (result == -ENOSYS)
    return refuse_process("exec of " + path + " by a program with several threads",
                          "start " + path + " with `xenspan run`");
  if (result != 0 || !in.ok()) return in.ok() ? result : -EIO;

  // What belongs to the thread starts anew; its blocked signals and its id stay (execve(2)).
  robust_list_ = 0;
  start_.clone.child_tid = 0;
  guest_stack_ = {nullptr, SS_DISABLE, 0};
  restore_mask_ = false;
  guest_fs = 0;
  std::memset(name_, 0, sizeof name_);
  path.substr(path.rfind('/') + 1).copy(name_, sizeof name_ - 1);
  reset_registers(context, start.clone.registers);
  finished = true;
  return 0;
}

}  // namespace xenspan::hypervisor::usermode
