#include "console.h"

#include <stdarg.h>

static void put(char c) { __asm__ volatile("outb %0, $0xe9" ::"a"(c)); }

static void put_number(uint64_t value, unsigned base) {
  char digits[20];
  int count = 0;
  do digits[count++] = "0123456789abcdef"[value % base];
  while ((value /= base) != 0);
  while (count > 0) put(digits[--count]);
}

void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  for (const char* at = format; *at != 0; at++) {
    if (*at != '%') {
      put(*at);
      continue;
    }
    at++;
    if (*at == 's') {
      for (const char* text = va_arg(arguments, const char*); *text != 0; text++) put(*text);
      continue;
    }
    uint64_t value = va_arg(arguments, uint64_t);
    if (*at == 'd' && (int64_t)value < 0) {
      put('-');
      value = -value;
    }
    put_number(value, *at == 'x' ? 16 : 10);
  }
  va_end(arguments);
}
