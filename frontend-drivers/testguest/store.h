// Xenstore, as far as the guest looks at it. vCPU 0 only: its pages stay on the home.
#ifndef XENSPAN_TESTGUEST_STORE_H
#define XENSPAN_TESTGUEST_STORE_H
#include <stdbool.h>

// Once. From now on `xl shutdown` asks this guest.
void store_begin(void);
// Whether it has been asked; it has been answered, then.
bool store_says_shut_down(void);

#endif
