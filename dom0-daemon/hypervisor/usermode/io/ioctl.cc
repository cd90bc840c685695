// ioctl(2): what each request's argument is.
//
// Old requests (terminals, sockets, FIO*) say nothing about their argument in their number, so they
// are listed. Newer ones carry direction and size (_IOC): they are taken by their number's word
// only within families whose structures hold no pointer and no tail of variable length, because the
// home's kernel would follow or fill those. The rest is ENOTTY.
#include <asm/termbits.h>
#include <linux/fcntl.h>
#include <linux/fs.h>
#include <linux/sockios.h>
#include <linux/tty.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/io/call_info.h"
#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/system_call.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

constexpr std::uint32_t kTermios = sizeof(struct termios), kTermio = 18,
                        kIfreq = sizeof(struct ifreq);

std::int64_t run_unknown(const HomeIo&, Invocation& invocation) {
  const std::int64_t open = call(SYS_fcntl, invocation.args[0], F_GETFD, 0);
  return open < 0 ? open : -ENOTTY;
}

constexpr int number(unsigned long request) { return static_cast<int>(request); }

// Argument forms. What the kernel leaves alone must come back as it was, hence inout for all that
// is written.
constexpr CallInfo value(unsigned long request) { return {number(request), {fd, val, val}}; }
constexpr CallInfo reads(unsigned long request, std::uint32_t bytes) {
  return {number(request), {fd, val, in_of(bytes)}};
}
constexpr CallInfo writes(unsigned long request, std::uint32_t bytes) {
  return {number(request), {fd, val, inout_of(bytes)}};
}

// clang-format off
constexpr CallInfo kRequests[] = {
  // Terminals
  writes(TCGETS, kTermios), reads(TCSETS, kTermios), reads(TCSETSW, kTermios), reads(TCSETSF, kTermios),
  writes(TCGETA, kTermio),  reads(TCSETA, kTermio),  reads(TCSETAW, kTermio),  reads(TCSETAF, kTermio),
  writes(TIOCGLCKTRMIOS, kTermios), reads(TIOCSLCKTRMIOS, kTermios),
  writes(TIOCGWINSZ, sizeof(winsize)), reads(TIOCSWINSZ, sizeof(winsize)),
  value(TCSBRK), value(TCSBRKP), value(TCXONC), value(TCFLSH), value(TIOCSBRK), value(TIOCCBRK),
  value(TIOCSCTTY), value(TIOCNOTTY), value(TIOCEXCL), value(TIOCNXCL), value(TIOCCONS), value(TIOCVHANGUP),
  writes(TIOCGPGRP, 4), reads(TIOCSPGRP, 4), writes(TIOCGSID, 4), writes(TIOCOUTQ, 4), reads(TIOCSTI, 1),
  writes(TIOCMGET, 4), reads(TIOCMSET, 4), reads(TIOCMBIS, 4), reads(TIOCMBIC, 4), value(TIOCMIWAIT),
  writes(TIOCGSOFTCAR, 4), reads(TIOCSSOFTCAR, 4), reads(TIOCPKT, 4), writes(TIOCGETD, 4), reads(TIOCSETD, 4),
  {number(TIOCGPTPEER), {fd, val, val}, true},

  // Any descriptor
  writes(FIONREAD, 4), reads(FIONBIO, 4), reads(FIOASYNC, 4), value(FIOCLEX), value(FIONCLEX), writes(FIOQSIZE, 8),

  // Files and block devices
  writes(FIBMAP, 4), writes(FIGETBSZ, 4),
  writes(FS_IOC_GETFLAGS, 8), reads(FS_IOC_SETFLAGS, 8), writes(FS_IOC_GETVERSION, 8), reads(FS_IOC_SETVERSION, 8),
  writes(FS_IOC_FSGETXATTR, sizeof(fsxattr)), reads(FS_IOC_FSSETXATTR, sizeof(fsxattr)),
  {number(FICLONE),      {fd, val, fd}},
  {number(FICLONERANGE), {fd, val, in_of(sizeof(file_clone_range))}, false, run_clone_range},
  writes(BLKROGET, 4), reads(BLKROSET, 4), writes(BLKGETSIZE, 8), writes(BLKRAGET, 8), value(BLKRASET),
  writes(BLKFRAGET, 8), value(BLKFRASET), writes(BLKSECTGET, 2), writes(BLKSSZGET, 4), writes(BLKPBSZGET, 4),
  writes(BLKIOMIN, 4), writes(BLKIOOPT, 4), writes(BLKALIGNOFF, 4), writes(BLKDISCARDZEROES, 4),
  writes(BLKROTATIONAL, 2), value(BLKFLSBUF), value(BLKRRPART), reads(BLKDISCARD, 16), reads(BLKSECDISCARD, 16),
  reads(BLKZEROOUT, 16), writes(BLKGETSIZE64, 8), writes(BLKBSZGET, 8), reads(BLKBSZSET, 8),

  // Sockets and network interfaces
  writes(SIOCATMARK, 4), writes(SIOCOUTQNSD, 4), reads(FIOSETOWN, 4), reads(SIOCSPGRP, 4), writes(FIOGETOWN, 4),
  writes(SIOCGPGRP, 4), writes(SIOCGIFNAME, kIfreq), writes(SIOCGIFFLAGS, kIfreq), writes(SIOCGIFADDR, kIfreq),
  writes(SIOCGIFDSTADDR, kIfreq), writes(SIOCGIFBRDADDR, kIfreq), writes(SIOCGIFNETMASK, kIfreq),
  writes(SIOCGIFMETRIC, kIfreq), writes(SIOCGIFMTU, kIfreq), writes(SIOCGIFHWADDR, kIfreq),
  writes(SIOCGIFINDEX, kIfreq), writes(SIOCGIFTXQLEN, kIfreq), writes(SIOCGIFMAP, kIfreq),
};
constexpr CallInfo kUnknown{0, {fd, val, null}, false, run_unknown};
// clang-format on

// Families with flat structures: terminals, real-time clocks, watchdogs, joysticks.
constexpr bool is_flat_family(unsigned type) {
  return type == 'T' || type == 'p' || type == 'W' || type == 'j';
}

// One description for each size a request of these families may state. Sizes are below 256 there.
constexpr std::uint32_t kMaxFlat = 256;
constexpr auto make_by_size() {
  std::array<CallInfo, kMaxFlat + 1> infos{};
  for (std::uint32_t bytes = 0; bytes <= kMaxFlat; ++bytes) infos[bytes] = writes(0, bytes);
  return infos;
}
constexpr auto kBySize = make_by_size();

}  // namespace

const CallInfo& describe_ioctl(std::uint64_t command) {
  const auto request = static_cast<std::uint32_t>(command);
  for (const CallInfo& info : kRequests)
    if (static_cast<std::uint32_t>(info.number) == request) return info;
  if (_IOC_DIR(request) == _IOC_NONE || !is_flat_family(_IOC_TYPE(request))) return kUnknown;
  const std::uint32_t bytes = _IOC_SIZE(request);
  return bytes > 0 && bytes <= kMaxFlat ? kBySize[bytes] : kUnknown;
}

}  // namespace xenspan::hypervisor::usermode::io
