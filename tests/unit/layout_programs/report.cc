// A program for the loader's and the symbols' tests: checks what a C library and a program rely on
// at start, prints what it finds. Built static and dynamic, position-independent and not.
#include <elf.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern char** environ;

namespace fixture {

constexpr int kWords = 5000;
int table[kWords];                          // .bss, several pages
int filled[3] = {17, 18, 19};               // .data
const char* const names[] = {"relocated"};  // .data.rel.ro of a position-independent program
thread_local int per_thread = 23;
bool constructed = false;

struct Early {
  Early() { constructed = true; }
} early;

struct Wheel {
  __attribute__((noinline)) int turn(int by) {
    asm volatile("");
    return by + filled[0];
  }
};

}  // namespace fixture

extern "C" __attribute__((noinline)) int fixture_function(int x) {
  asm volatile("");
  return x + 1;
}

namespace {

bool check(bool right, const char* what) {
  if (!right) std::printf("wrong: %s\n", what);
  return right;
}

bool check_auxv() {
  bool right = true;
  const auto* headers = reinterpret_cast<const Elf64_Phdr*>(getauxval(AT_PHDR));
  right &= check(headers != nullptr && getauxval(AT_PHENT) == sizeof(Elf64_Phdr), "AT_PHDR");
  bool loads = false;
  for (std::uint64_t i = 0; headers != nullptr && i < getauxval(AT_PHNUM); ++i) {
    loads |= headers[i].p_type == PT_LOAD;
  }
  right &= check(loads, "AT_PHNUM");
  right &= check(getauxval(AT_PAGESZ) == 4096, "AT_PAGESZ");
  right &= check(getauxval(AT_CLKTCK) == 100, "AT_CLKTCK");
  right &= check(getauxval(AT_SECURE) == 0, "AT_SECURE");
  right &= check(getauxval(AT_SYSINFO_EHDR) == 0, "AT_SYSINFO_EHDR");
  right &= check(getauxval(AT_UID) == 4711 && getauxval(AT_EGID) == 4712, "AT_UID, AT_EGID");
  right &= check(getauxval(AT_HWCAP) != 0, "AT_HWCAP");
  right &= check(getauxval(AT_RANDOM) % 16 == 0, "AT_RANDOM");
  const auto* platform = reinterpret_cast<const char*>(getauxval(AT_PLATFORM));
  right &= check(platform != nullptr && std::strcmp(platform, "x86_64") == 0, "AT_PLATFORM");
  return right;
}

bool check_memory() {
  bool right = true;
  int sum = 0;
  for (const int word : fixture::table) sum |= word;
  right &= check(sum == 0, ".bss is zero");
  right &= check(fixture::filled[2] == 19, ".data");
  right &= check(std::strcmp(fixture::names[0], "relocated") == 0, "relocations");
  right &= check(fixture::per_thread == 23, "thread-local storage");
  right &= check(fixture::constructed, "constructors");
  void* memory = std::malloc(1 << 20);
  right &= check(memory != nullptr, "malloc");
  std::free(memory);
  return right;
}

template <typename T>
void print_address(const char* name, T thing) {
  std::printf("%s %p\n", name, reinterpret_cast<void*>(thing));
}

}  // namespace

int main(int argc, char** argv) {
  const bool right = check_auxv() & check_memory();
  std::printf("executable %s\n", reinterpret_cast<const char*>(getauxval(AT_EXECFN)));
  for (int i = 0; i < argc; ++i) std::printf("argument %s\n", argv[i]);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    std::printf("variable %s\n", *variable);
  }
  fixture::Wheel wheel;
  int (fixture::Wheel::*turn)(int) = &fixture::Wheel::turn;
  void* turn_address = nullptr;
  std::memcpy(&turn_address, &turn, sizeof turn_address);
  print_address("function", &fixture_function);
  print_address("method", turn_address);
  print_address("bss", &fixture::table[4000]);
  print_address("data", &fixture::filled);
  std::printf("sum %d\n", fixture_function(wheel.turn(1)));
  std::fflush(stdout);
  return right ? 7 : 1;
}
