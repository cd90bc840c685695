/*
 * libxenspan-noxen.so: lets an unchanged xenstored run on Linux without Xen.
 *
 * Loaded with LD_PRELOAD into xenstored, and into nothing else, by xenspand. xenstored asks the
 * hypervisor for three things: which domains exist, event channels, and the page that it shares
 * with each domain. Here there is one domain, domain 0, which never uses its shared page: all its
 * programs come over the Unix socket. So the answers are: domain 0 runs, no event ever comes, and
 * the page is empty memory.
 *
 * Written for xenstored of Xen 4.17. It is single-threaded, and so is this. C without a C++
 * runtime, so that nothing but these functions enters the process.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#define EXPORT __attribute__((visibility("default")))

/* What Xen's kernel driver shows: the event channel of domain 0's xenstore page, and the page. */
static const char port_file[] = "/proc/xen/xsd_port";
static const char page_file[] = "/proc/xen/xsd_kva";
static const char first_port[] = "1";
enum { PAGE_BYTES = 4096 };

/* Handles are only compared with NULL and passed back. */
static char handle;

/* Domains. */

EXPORT xc_interface* xc_interface_open(xentoollog_logger* logger,
                                       xentoollog_logger* dombuild_logger, unsigned open_flags) {
  (void)logger;
  (void)dombuild_logger;
  (void)open_flags;
  return (xc_interface*)&handle;
}

EXPORT int xc_interface_close(xc_interface* xch) {
  (void)xch;
  return 0;
}

EXPORT int xc_domain_getinfo(xc_interface* xch, uint32_t first_domid, unsigned int max_doms,
                             xc_dominfo_t* info) {
  (void)xch;
  if (first_domid != 0 || max_doms == 0) return 0;
  memset(info, 0, sizeof *info);
  info->running = 1;
  return 1;
}

/* Event channels. The descriptor that xenstored polls never becomes readable. */

static int event_fd = -1;

EXPORT xenevtchn_handle* xenevtchn_open(struct xentoollog_logger* logger, unsigned int flags) {
  (void)logger;
  (void)flags;
  event_fd = eventfd(0, EFD_CLOEXEC);
  return event_fd < 0 ? NULL : (xenevtchn_handle*)&handle;
}

/* Live update hands a descriptor over to a new xenstored; without Xen it is restarted instead. */
EXPORT xenevtchn_handle* xenevtchn_fdopen(struct xentoollog_logger* logger, int fd,
                                          unsigned flags) {
  (void)logger;
  (void)fd;
  (void)flags;
  errno = ENOSYS;
  return NULL;
}

EXPORT int xenevtchn_close(xenevtchn_handle* xce) {
  (void)xce;
  const int fd = event_fd;
  event_fd = -1;
  return fd < 0 ? 0 : close(fd);
}

EXPORT int xenevtchn_fd(xenevtchn_handle* xce) {
  (void)xce;
  return event_fd;
}

EXPORT int xenevtchn_notify(xenevtchn_handle* xce, evtchn_port_t port) {
  (void)xce;
  (void)port;
  return 0;
}

static xenevtchn_port_or_error_t new_port(void) {
  static xenevtchn_port_or_error_t last_port = 1; /* 1 is first_port */
  return ++last_port;
}

EXPORT xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle* xce, uint32_t domid,
                                                            evtchn_port_t remote_port) {
  (void)xce;
  (void)remote_port;
  if (domid == 0) return new_port();
  errno = ESRCH; /* xs_introduce_domain of a domain that cannot exist here */
  return -1;
}

EXPORT xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle* xce, unsigned int virq) {
  (void)xce;
  (void)virq;
  return new_port();
}

EXPORT int xenevtchn_unbind(xenevtchn_handle* xce, evtchn_port_t port) {
  (void)xce;
  (void)port;
  return 0;
}

EXPORT xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle* xce) {
  (void)xce;
  errno = EAGAIN;
  return -1;
}

EXPORT int xenevtchn_unmask(xenevtchn_handle* xce, evtchn_port_t port) {
  (void)xce;
  (void)port;
  return 0;
}

/* Grants: how xenstored maps other domains' pages. There are none. */

EXPORT xengnttab_handle* xengnttab_open(struct xentoollog_logger* logger, unsigned open_flags) {
  (void)logger;
  (void)open_flags;
  return (xengnttab_handle*)&handle;
}

EXPORT int xengnttab_close(xengnttab_handle* xgt) {
  (void)xgt;
  return 0;
}

EXPORT int xengnttab_set_max_grants(xengnttab_handle* xgt, uint32_t nr_grants) {
  (void)xgt;
  (void)nr_grants;
  return 0;
}

EXPORT void* xengnttab_map_grant_ref(xengnttab_handle* xgt, uint32_t domid, uint32_t ref,
                                     int prot) {
  (void)xgt;
  (void)domid;
  (void)ref;
  (void)prot;
  errno = ESRCH;
  return NULL;
}

EXPORT int xengnttab_unmap(xengnttab_handle* xgt, void* start_address, uint32_t count) {
  (void)xgt;
  (void)start_address;
  (void)count;
  return 0;
}

/* Files of /proc/xen, from memory. */

static int open_port_file(void) {
  const int fd = memfd_create("xsd_port", MFD_CLOEXEC);
  if (fd < 0) return -1;
  const ssize_t length = sizeof first_port - 1;
  if (write(fd, first_port, length) == length && lseek(fd, 0, SEEK_SET) == 0) return fd;
  close(fd);
  errno = EIO;
  return -1;
}

static int open_page_file(void) {
  const int fd = memfd_create("xsd_kva", MFD_CLOEXEC);
  if (fd < 0) return -1;
  if (ftruncate(fd, PAGE_BYTES) == 0) return fd;
  close(fd);
  errno = EIO;
  return -1;
}

static int open_any(const char* symbol, const char* path, int flags, mode_t mode) {
  if (strcmp(path, port_file) == 0) return open_port_file();
  if (strcmp(path, page_file) == 0) return open_page_file();
  int (*next)(const char*, int, ...);
  *(void**)&next = dlsym(RTLD_NEXT, symbol);
  if (next == NULL) {
    errno = ENOSYS;
    return -1;
  }
  return next(path, flags, mode);
}

#define OPEN_MODE(flags, mode)                      \
  do {                                              \
    if (((flags) & (O_CREAT | __O_TMPFILE)) != 0) { \
      va_list arguments;                            \
      va_start(arguments, flags);                   \
      (mode) = va_arg(arguments, mode_t);           \
      va_end(arguments);                            \
    }                                               \
  } while (0)

EXPORT int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  OPEN_MODE(flags, mode);
  return open_any("open", path, flags, mode);
}

EXPORT int open64(const char* path, int flags, ...) {
  mode_t mode = 0;
  OPEN_MODE(flags, mode);
  return open_any("open64", path, flags, mode);
}
