// Options from the command line, and the conductor: every vCPU goes through the same list of
// workloads.
#include <stddef.h>
#include <stdint.h>
#include <xen/arch-x86/hvm/start_info.h>

#include "console.h"
#include "store.h"
#include "sync.h"
#include "workloads.h"

struct options options = {.count = 1,
                          .fib = 24,
                          .increments = 100000,
                          .litmus = 100,
                          .ipis = 200,
                          .locks = 2000,
                          .changes = 32,
                          .turns = 200,
                          .touch = 64,
                          .spread = 1024,
                          .patience = 60};

static const struct workload workloads[] = {
    {"fib", 1, fib_prepare, fib_work, fib_judge, 0, false},
    {"matrix", 1, matrix_prepare, matrix_work, matrix_judge, 0, false},
    {"counter", 1, NULL, counter_work, counter_judge, 0, false},
    {"lock", 1, NULL, lock_work, lock_judge, 0, false},
    {"pages", 2, NULL, pages_work, pages_judge, 0, false},
    {"code", 1, NULL, code_work, code_judge, 0, false},
    {"tables", 1, NULL, tables_work, tables_judge, 0, false},
    {"ipi", 2, NULL, ipi_work, ipi_judge, 0, false},
    {"timer", 1, NULL, timer_work, timer_judge, 0, false},
    {"tsc", 1, NULL, tsc_work, tsc_judge, 0, false},
    {"litmus-sb", 2, litmus_prepare, litmus_work, litmus_judge, kSb, false},
    {"litmus-sb-fence", 2, litmus_prepare, litmus_work, litmus_judge, kSbFence, false},
    {"litmus-mp", 2, litmus_prepare, litmus_work, litmus_judge, kMp, false},
    {"litmus-lb", 2, litmus_prepare, litmus_work, litmus_judge, kLb, false},
    {"litmus-s", 2, litmus_prepare, litmus_work, litmus_judge, kS, false},
    {"litmus-r", 2, litmus_prepare, litmus_work, litmus_judge, kR, false},
    {"litmus-r-fence", 2, litmus_prepare, litmus_work, litmus_judge, kRFence, false},
    {"litmus-2+2w", 2, litmus_prepare, litmus_work, litmus_judge, k22w, false},
    {"litmus-corr", 2, litmus_prepare, litmus_work, litmus_judge, kCoRr, false},
    {"litmus-wrc", 3, litmus_prepare, litmus_work, litmus_judge, kWrc, false},
    {"litmus-iriw", 4, litmus_prepare, litmus_work, litmus_judge, kIriw, false},
    {"touch", 1, NULL, touch_work, touch_judge, 0, true},
    {"stray", 1, NULL, stray_work, stray_judge, 0, true},
    {"spread", 1, NULL, spread_work, spread_judge, 0, true},
};
enum { kWorkloads = sizeof workloads / sizeof workloads[0] };
static bool chosen[kWorkloads];
static uint64_t failures, failed[kWorkloads];

static size_t length_until(const char* text, char end) {
  size_t length = 0;
  while (text[length] != 0 && text[length] != end && text[length] != ' ') length++;
  return length;
}

static bool begins_with(const char* text, const char* prefix, size_t length) {
  for (size_t i = 0; i < length; i++) {
    if (text[i] != prefix[i]) return false;
  }
  return true;
}

// A name of the list chooses every workload that begins with it.
static void choose(const char* list) {
  for (;;) {
    const size_t length = length_until(list, ',');
    const bool all = length == 3 && begins_with(list, "all", 3);
    bool found = false;
    for (int i = 0; i < kWorkloads; i++) {
      if (all ? !workloads[i].by_name_only
              : length > 0 && begins_with(workloads[i].name, list, length)) {
        chosen[i] = found = true;
      }
    }
    if (!found) {
      say("testguest: FAIL run= names a workload that there is not: %s\n", list);
      power_off();
    }
    if (list[length] != ',') return;
    list += length + 1;
  }
}

static const struct {
  const char* name;
  uint64_t* value;
} numbers[] = {{"spin", &spins_before_yield},
               {"count", &options.count},
               {"hold", &options.hold},
               {"start", &options.start},
               {"gate", &options.gate},
               {"fib", &options.fib},
               {"increments", &options.increments},
               {"litmus", &options.litmus},
               {"ipis", &options.ipis},
               {"locks", &options.locks},
               {"changes", &options.changes},
               {"turns", &options.turns},
               {"touch", &options.touch},
               {"spread", &options.spread},
               {"patience", &options.patience},
               {"off", &options.off},
               {"until", &options.until},
               {"listen", &options.listen}};

static bool set_number(const char* word, size_t name_length) {
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    if (!begins_with(word, numbers[i].name, name_length) || numbers[i].name[name_length] != 0)
      continue;
    uint64_t value = 0;
    const char* digit = word + name_length + 1;
    if (*digit < '0' || *digit > '9') return false;
    for (; *digit >= '0' && *digit <= '9'; digit++) value = value * 10 + (uint64_t)(*digit - '0');
    *numbers[i].value = value;
    return *digit == 0 || *digit == ' ';
  }
  return false;
}

static void read_options(const char* at) {
  bool listed = false;
  while (*at != 0) {
    while (*at == ' ') at++;
    if (*at == 0) break;
    const size_t name = length_until(at, '=');
    if (name == 3 && begins_with(at, "run", 3) && at[3] == '=') {
      choose(at + 4);
      listed = true;
    } else if (at[name] != '=' || !set_number(at, name)) {
      say("testguest: FAIL the command line, from here on, is not understood: %s\n", at);
      power_off();
    }
    at += length_until(at, ' ');
  }
  if (!listed) choose("all");
  if (spins_before_yield == 0) spins_before_yield = 1;
  if (options.fib < 12 || options.fib > 60) options.fib = 24;
}

static volatile uint64_t started OWN_PAGE;

// All but vCPU 0 wait for it.
static void wait_for_the_start(unsigned me) {
  while (me != 0 && __atomic_load_n(&started, __ATOMIC_SEQ_CST) == 0) nap(me);
  if (me != 0) return;
  const uint64_t end = read_tsc() + options.start * ticks_per_second();
  while (read_tsc() < end) nap(me);
  while (options.gate != 0 && __atomic_load_n(&gate[0], __ATOMIC_SEQ_CST) == 0) nap(me);
  started = 1;
}

// Another round of the list? With `until` the rounds are not counted beforehand: a program in Dom0
// (or, with `listen`, `xl shutdown`) ends them, and after the first only failures are said.
static bool another_round(uint64_t round, unsigned me) {
  static volatile uint64_t over;
  if (options.until == 0) return round < options.count;
  barrier();
  if (me == 0 && round > 0) over = gate[0] == 2 || (options.listen != 0 && store_says_shut_down());
  barrier();
  if (me == 0 && over) say("testguest: %u rounds\n", round);
  return !over;
}

static void say_verdict(const struct workload* workload, struct verdict verdict, bool briefly) {
  if (verdict.ok && briefly) return;
  if (verdict.ok) {
    say("%s: ok %u; by vCPU", workload->name, verdict.value);
  } else {
    say("%s: FAIL %u instead of %u; by vCPU", workload->name, verdict.value, verdict.wanted);
    failures++;
    failed[workload - workloads]++;
  }
  for (unsigned each = 0; each < vcpu_count; each++) say(" %u", vcpus[each].work);
  say("\n");
}

static void hold(unsigned me) {
  static volatile uint64_t wrong;
  if (options.hold == 0) return;
  barrier();
  if (!compute_for(options.hold, me * 1000003 + 1)) __atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
  barrier();
  if (me == 0 && wrong != 0) {
    say("hold: FAIL registers changed on %u vCPUs\n", wrong);
    failures++;
    wrong = 0;
  }
}

static void run(const struct workload* workload, unsigned me, uint64_t round) {
  if (vcpu_count < workload->vcpus) {
    if (me == 0) say("%s: skipped, it needs %u vCPUs\n", workload->name, (uint64_t)workload->vcpus);
    return;
  }
  hold(me);
  barrier();
  vcpus[me].work = 0;
  if (me == 0) {
    for (uint64_t i = 0; i < kArenaPages * (uint64_t)PAGE / 8; i++) arena(0)[i] = 0;
    if (workload->prepare != NULL) workload->prepare(workload->argument);
  }
  meet();
  workload->work(me, workload->argument);
  barrier();
  if (me == 0)
    say_verdict(workload, workload->judge(workload->argument), options.until != 0 && round > 0);
}

void c_main(uint64_t me, const struct hvm_start_info* start) {
  if (me == 0) {
    machine_begin();
    machine_begin_vcpu(0);
    read_options((const char*)start->cmdline_paddr);
    if (options.listen != 0) store_begin();
    start_others();
    say("testguest: %u vCPUs, %u kHz, timer by %s\n", (uint64_t)vcpu_count,
        ticks_per_second() / 1000, timer_has_deadline_mode() ? "deadline" : "counter");
    wait_for_the_start(0);
    say("testguest: go\n");
  } else {
    machine_begin_vcpu((unsigned)me);
    wait_for_the_start((unsigned)me);
  }
  barrier();  // the others wait here until vCPU 0 has been told to go
  for (uint64_t round = 0; another_round(round, (unsigned)me); round++) {
    for (int i = 0; i < kWorkloads; i++) {
      if (chosen[i]) run(&workloads[i], (unsigned)me, round);
    }
  }
  barrier();
  if (me != 0) return;
  for (int i = 0; i < kWorkloads; i++) {
    if (failed[i] != 0) say("testguest: %s failed, %u times\n", workloads[i].name, failed[i]);
  }
  if (failures != 0) say("testguest: %u failed\n", failures);
  say("testguest: done\n");
  if (options.off != 0) power_off();
}
