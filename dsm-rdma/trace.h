#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <atomic>
#include <cstdio>
#include <time.h>
struct TraceRec { unsigned long ns; unsigned tid; unsigned code; unsigned long a, b; };
struct Trace { std::atomic<unsigned long> n; TraceRec r[1<<20]; };
inline Trace* the_trace = [] () -> Trace* {
  char name[64]; snprintf(name, 64, "/tmp/tr.%d", getpid());
  if (access("/tmp/TRACE", F_OK) != 0) return nullptr;
  int fd = open(name, O_RDWR|O_CREAT|O_TRUNC, 0666);
  if (fd < 0) return nullptr;
  if (ftruncate(fd, sizeof(Trace)) != 0) return nullptr;
  return (Trace*)mmap(nullptr, sizeof(Trace), PROT_READ|PROT_WRITE, MAP_SHARED, fd, 0);
}();
inline void trace(char code, unsigned long a, unsigned long b) {
  if (!the_trace) return;
  timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
  unsigned long i = the_trace->n.fetch_add(1);
  if (i >= 1<<20) return;
  static thread_local int tid = gettid();
  the_trace->r[i] = {t.tv_sec*1000000000ul + t.tv_nsec, (unsigned)tid, (unsigned)code, a, b};
}
