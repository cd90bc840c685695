// What xenstore says to the guest: `xl shutdown` writes control/shutdown there and waits until the
// guest has taken it away. The least that a client can be: vCPU 0, one question at a time.
#include "store.h"

// The same interface as in machine.c.
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__

#include <stdint.h>
#include <xen/event_channel.h>
#include <xen/hvm/params.h>
#include <xen/io/xs_wire.h>
#include <xen/xen.h>

#include "machine.h"
#include "sync.h"

static volatile struct xenstore_domain_interface* ring;
static struct evtchn_send door OWN_PAGE;

// `xl shutdown` asks only guests that have told Xen where events are to interrupt them. This one
// names a line that there is not, and looks by itself.
enum { kNoLine = 255 };

void store_begin(void) {
  ring = (volatile struct xenstore_domain_interface*)(hvm_param(HVM_PARAM_STORE_PFN) * PAGE);
  door.port = (evtchn_port_t)hvm_param(HVM_PARAM_STORE_EVTCHN);
  set_hvm_param(HVM_PARAM_CALLBACK_IRQ, kNoLine);
}

static void ring_the_bell(void) {
  hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (uint64_t)&door, 0);
}

static void put(const void* from, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i++) {
    WAIT_UNTIL(ring->req_prod - ring->req_cons < XENSTORE_RING_SIZE);
    ring->req[MASK_XENSTORE_IDX(ring->req_prod)] = ((const char*)from)[i];
    full_fence();
    ring->req_prod++;
  }
}

static void get(char* to, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i++) {
    while (ring->rsp_prod == ring->rsp_cons) nap(0);
    full_fence();
    to[i] = ring->rsp[MASK_XENSTORE_IDX(ring->rsp_cons)];
    full_fence();
    ring->rsp_cons++;
  }
}

// The answer's first bytes, with zeros behind them. False: an error.
static bool ask(uint32_t type, const char* body, uint32_t bytes, char* answer, uint32_t room) {
  struct xsd_sockmsg head = {.type = type, .len = bytes};
  put(&head, sizeof head);
  put(body, bytes);
  ring_the_bell();
  get((char*)&head, sizeof head);
  for (uint32_t i = 0; i < room; i++) answer[i] = 0;
  for (uint32_t i = 0; i < head.len; i++) {
    char letter;
    get(&letter, 1);
    if (i + 1 < room) answer[i] = letter;
  }
  ring_the_bell();  // there is room again
  return head.type == type;
}

bool store_says_shut_down(void) {
  static const char path[] = "control/shutdown", wanted[] = "poweroff";
  char said[sizeof wanted + 1];
  if (!ask(XS_READ, path, sizeof path, said, sizeof said)) return false;
  for (unsigned i = 0; i < sizeof wanted; i++) {
    if (said[i] != wanted[i]) return false;
  }
  ask(XS_WRITE, path, sizeof path, said, sizeof said);  // nothing: it has been heard
  return true;
}
