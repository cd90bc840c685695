// What vCPUs do to each other's memory: one word, a lock, pages handed over, pages of code, page
// tables.
#include "console.h"
#include "sync.h"
#include "workloads.h"

enum { kRing = 4 };

static uint64_t work_of_all(void) {
  uint64_t sum = 0;
  for (unsigned each = 0; each < vcpu_count; each++) sum += vcpus[each].work;
  return sum;
}

// counter: one word that all increment.
void counter_work(unsigned me, unsigned argument) {
  (void)argument;
  for (uint64_t i = 0; i < options.increments; i++) {
    __atomic_fetch_add(arena(0), 1, __ATOMIC_SEQ_CST);
    vcpus[me].work++;
  }
}

struct verdict counter_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = options.increments * vcpu_count;
  return (struct verdict){*arena(0) == wanted, *arena(0), wanted};
}

// lock: two words in two pages, equal whenever the lock is held.
static struct lock shared_lock OWN_PAGE;

void lock_work(unsigned me, unsigned argument) {
  (void)argument;
  for (uint64_t i = 0; i < options.locks; i++) {
    acquire(&shared_lock);
    vcpus[me].work += arena(0)[0] == arena(1)[0];
    arena(0)[0] = arena(0)[0] + 1;
    arena(1)[0] = arena(1)[0] + 1;
    release(&shared_lock);
  }
}

struct verdict lock_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = options.locks * vcpu_count;
  return (struct verdict){work_of_all() == wanted && arena(0)[0] == wanted && arena(1)[0] == wanted,
                          arena(0)[0], wanted};
}

// pages: vCPU 2n fills pages, vCPU 2n+1 checks them and gives them back; a pair has a page of flags
// and four of data.
static uint64_t filler(unsigned pair, unsigned number, unsigned word) {
  return ((uint64_t)pair << 48 | (uint64_t)number << 16 | word) * 0x9e3779b97f4a7c15u;
}

void pages_work(unsigned me, unsigned argument) {
  (void)argument;
  const unsigned pair = me / 2, base = pair * (kRing + 1);
  if (pair * 2 + 1 >= vcpu_count) return;  // the last of an odd number
  for (unsigned number = 0; number < options.changes * 2; number++) {
    volatile uint64_t* full = &arena(base)[number % kRing * 8];
    volatile uint64_t* page = arena(base + 1 + number % kRing);
    if (me % 2 == 0) {
      WAIT_UNTIL(__atomic_load_n(full, __ATOMIC_ACQUIRE) == 0);
      for (unsigned word = 0; word < PAGE / 8; word++) page[word] = filler(pair, number, word);
      __atomic_store_n(full, number + 1, __ATOMIC_RELEASE);
      vcpus[me].work++;
    } else {
      WAIT_UNTIL(__atomic_load_n(full, __ATOMIC_ACQUIRE) == number + 1);
      unsigned right = 0;
      for (unsigned word = 0; word < PAGE / 8; word++)
        right += page[word] == filler(pair, number, word);
      vcpus[me].work += right == PAGE / 8;
      __atomic_store_n(full, 0, __ATOMIC_RELEASE);
    }
  }
}

struct verdict pages_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = options.changes * 4 * (vcpu_count / 2);
  return (struct verdict){work_of_all() == wanted, work_of_all(), wanted};
}

// code: each writes a function into a page, the next one runs it; the same pages again and again.
static void serialise(void) {
  uint32_t a = 0, b, c = 0, d;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d)::"memory");
}

void code_work(unsigned me, unsigned argument) {
  (void)argument;
  for (uint32_t version = 1; version <= options.changes; version++) {
    volatile uint8_t* code = (volatile uint8_t*)arena(me);
    const uint32_t constant = version << 8 | me;
    code[0] = 0xb8;  // mov $constant, %eax
    for (int i = 0; i < 4; i++) code[1 + i] = (uint8_t)(constant >> (8 * i));
    code[5] = 0xc3;  // ret
    barrier();
    serialise();
    const unsigned other = (me + 1) % vcpu_count;
    const uint32_t got = ((uint32_t(*)(void))(uint64_t)arena(other))();
    vcpus[me].work += got == (version << 8 | other);
    barrier();
  }
}

struct verdict code_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = options.changes * vcpu_count;
  return (struct verdict){work_of_all() == wanted, work_of_all(), wanted};
}

// tables: a window of virtual pages beyond the identity map. In turn, one vCPU points them at other
// pages; all look through them.
extern uint64_t window_tables[];
enum { kWindowPages = 16, kDirectory = 0, kTable = 1, kData = 2 };

void tables_work(unsigned me, unsigned argument) {
  (void)argument;
  const uint64_t window = 4ull << 30;
  if (me == 0) {
    for (unsigned i = 0; i < kWindowPages; i++) arena(kData + i)[0] = 1000 + i;
    arena(kDirectory)[0] =
        (uint64_t)arena(kTable) | 3;  // no accessed and dirty bits: the walks write them
    window_tables[0] = (uint64_t)arena(kDirectory) | PAGE_BITS;
  }
  for (unsigned change = 0; change < options.changes; change++) {
    barrier();
    if (me == change % vcpu_count) {
      for (unsigned i = 0; i < kWindowPages; i++)
        arena(kTable)[i] = (uint64_t)arena(kData + (i + change) % kWindowPages) | 3;
    }
    barrier();
    __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" ::: "rax", "memory");
    unsigned right = 0;
    for (unsigned i = 0; i < kWindowPages; i++) {
      volatile uint64_t* at = (volatile uint64_t*)(window + (uint64_t)i * PAGE);
      right += at[0] == 1000 + (i + change) % kWindowPages;
      at[1 + me] = change;  // sets the dirty bit
    }
    vcpus[me].work += right == kWindowPages;
  }
  barrier();
  if (me == 0) window_tables[0] = 0;
  barrier();
  __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" ::: "rax", "memory");
}

struct verdict tables_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = options.changes * vcpu_count;
  bool written = true;  // the last change went through every page of the window
  for (unsigned i = 0; i < kWindowPages * vcpu_count; i++) {
    written &= arena(kData + i % kWindowPages)[1 + i / kWindowPages] == options.changes - 1;
  }
  return (struct verdict){work_of_all() == wanted && written, work_of_all(), wanted};
}

// stray: the last vCPU reads a page that is none of the guest's memory, the console's ring.
void stray_work(unsigned me, unsigned argument) {
  (void)argument;
  if (me + 1 != vcpu_count) return;
  vcpus[me].work = ((volatile uint64_t*)(console_page() * PAGE))[0] == 0 ? 1 : 2;
}

struct verdict stray_judge(unsigned argument) {
  (void)argument;
  return (struct verdict){work_of_all() != 0, work_of_all(), 1};
}

// spread: each writes pages of its own, far more than the other workloads have, then checks them
// and some of its neighbour's. For a guest with more memory than it touches.
enum { kShared = 64 };

// What was found instead, by each vCPU: said by vCPU 0.
static struct {
  uint64_t count, owner, first, last, words[3];
} __attribute__((aligned(PAGE))) wrong[MAX_VCPUS] OWN_PAGE;

static volatile uint64_t* spread_page(unsigned owner, uint64_t number) {
  return (volatile uint64_t*)(TOUCH_ADDRESS + (owner * options.spread + number) * PAGE);
}

void spread_work(unsigned me, unsigned argument) {
  (void)argument;
  for (uint64_t number = 0; number < options.spread; number++) {
    volatile uint64_t* page = spread_page(me, number);
    page[0] = page[PAGE / 8 - 1] = filler(me, 0, (unsigned)number);
  }
  barrier();
  const unsigned other = (me + 1) % vcpu_count;
  for (uint64_t number = 0; number < options.spread + kShared; number++) {
    const unsigned owner = number < options.spread ? me : other;
    const uint64_t own = number % options.spread;
    volatile uint64_t* page = spread_page(owner, own);
    const uint64_t wanted = filler(owner, 0, (unsigned)own);
    if (page[0] == wanted && page[1] == 0 && page[PAGE / 8 - 1] == wanted) {
      vcpus[me].work++;
      continue;
    }
    if (wrong[me].count++ == 0) {
      wrong[me].owner = owner;
      wrong[me].first = own;
      wrong[me].words[0] = page[0];
      wrong[me].words[1] = page[1];
      wrong[me].words[2] = page[PAGE / 8 - 1];
    }
    wrong[me].last = own;
  }
}

struct verdict spread_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = (options.spread + kShared) * vcpu_count;
  for (unsigned each = 0; each < vcpu_count; each++) {
    if (wrong[each].count == 0) continue;
    say("spread: vCPU %u found %u wrong pages, %u of vCPU %u the first, %u the last; the first "
        "begins %x",
        (uint64_t)each, wrong[each].count, wrong[each].first, wrong[each].owner, wrong[each].last,
        wrong[each].words[0]);
    say(" %x and ends %x\n", wrong[each].words[1], wrong[each].words[2]);
  }
  return (struct verdict){work_of_all() == wanted, work_of_all(), wanted};
}
