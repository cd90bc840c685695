// Text on port 0xE9, which Xen puts on its own console with the domain's number before each line.
#ifndef XENSPAN_TESTGUEST_CONSOLE_H
#define XENSPAN_TESTGUEST_CONSOLE_H
#include <stdint.h>

// %s, %u (64 bits), %x (64 bits) and %d (64 bits, signed). Lines longer than Xen's 78 characters
// are broken by Xen.
void say(const char* format, ...);

#endif
