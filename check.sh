#!/usr/bin/env bash
# check.sh [--quick | --release]: installs what is missing, builds in ./build with warnings as errors, and runs every test.
# The last line is "N passed, N failed"; the exit status is 0 only when nothing failed. Needs root for the tests with
# several hosts. --quick leaves out the benchmarks and the virtual machines but Xen's under QEMU, and takes the host tests
# over 2 hosts only; --release adds distcheck and the litmus shapes' whole count over three hosts.
set -u
cd "$(dirname "$0")" || exit 2
top=$PWD
build=${BUILD:-$top/build}  # BUILD names another folder
quick=no release=no
case ${1:-} in
  "") ;;
  --quick) quick=yes ;;
  --release) release=yes ;;
  *) sed -n '2,6s/^# //p' "$0"; [ "$1" = --help ] && exit 0; exit 2 ;;
esac

passed=0 failed=0 skipped=0
summary=()
began=$SECONDS

say() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - began)); }
count() { # PART PASSED FAILED [SKIPPED]
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + ${4:-0}))
  summary+=("$(printf '%-22s %5d passed %4d failed %4d skipped' "$1" "$2" "$3" "${4:-0}")")
}
finish() {
  printf '\n'
  printf '%s\n' "${summary[@]}"
  printf '%d s, %d skipped\n' $((SECONDS - began)) "$skipped"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ]
  exit
}
# A step without which the rest makes no sense: its output goes to a file, the end of it to the screen when it fails.
must() { # PART COMMAND...
  local part=$1
  shift
  say "$part"
  if "$@" >"$build/check-$part.log" 2>&1; then
    count "$part" 1 0
  else
    tail -n 40 "$build/check-$part.log"
    echo "check.sh: $part failed; whole output: $build/check-$part.log" >&2
    count "$part" 0 1
    finish
  fi
}

# Counts the single tests in the logs of `make check`: a GoogleTest program is as many tests as it ran.
count_tests() {
  local trs log result ok bad skip
  local sum_ok=0 sum_bad=0 sum_skip=0
  while read -r trs; do
    log=${trs%.trs}.log
    result=$(sed -n 's/^:global-test-result: //p' "$trs")
    if grep -q '^\[==========\] .* ran\.' "$log"; then
      ok=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
      bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
      skip=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
    else
      ok=0 bad=0 skip=0
      case $result in PASS) ok=1 ;; SKIP) skip=1 ;; *) bad=1 ;; esac
    fi
    ok=${ok:-0} bad=${bad:-0} skip=${skip:-0}
    # A program that fails after its last test, or before its first, is a failure too.
    case $result in FAIL | ERROR) [ "$bad" -gt 0 ] || bad=1 ;; esac
    [ "$bad" -eq 0 ] || { echo "FAIL ${log#"$build"/}"; grep -E '^\[  FAILED  \] .*[.]|Failure$' "$log" | sort -u | head -n 10; }
    [ "$skip" -eq 0 ] || { echo "skip ${log#"$build"/}:"; grep -A 3 ': Skipped$' "$log" | head -n 8; [ "$result" = SKIP ] && tail -n 2 "$log"; }
    sum_ok=$((sum_ok + ok)) sum_bad=$((sum_bad + bad)) sum_skip=$((sum_skip + skip))
  done < <(find "$build/tests" -name '*.trs' | sort)
  grep -hE '^explorer: [0-9]+ states in all|^random: (seed|hosts)|^quorum: [0-9]+ fault' "$build"/tests/sim/*_test.log
  count "unit and simulation" $sum_ok $sum_bad $sum_skip
}

# The virtual machines' tests: what a target's output says it counted.
count_lab() { # TARGET
  local last
  last=$(tail -n 50 "$build/$1.log" | grep -E '^[0-9]+ passed, [0-9]+ failed$' | tail -n 1)
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    count "$1" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
  else
    echo "check.sh: $1 ended without its summary; whole output: $build/$1.log" >&2
    count "$1" 0 1
  fi
}

mkdir -p "$build"
say packages
tests/install-packages || { count packages 0 1; finish; }
must autogen ./autogen.sh
# Optimised as always, so that every warning is seen; line numbers, but no more about variables: a quarter of the compilers' time.
# A compiler that does not look for memory to use again needs 100 MB more, and a tenth less time.
must configure env -C "$build" "$top/configure" --enable-werror \
  "CFLAGS=${CFLAGS:--g1 -O2}" "CXXFLAGS=${CXXFLAGS:--g1 -O2 --param ggc-min-heapsize=400000}" "FCFLAGS=${FCFLAGS:--g1 -O2}"
must make make -C "$build" -j"$(nproc)" programs

trap '[ -z "$(jobs -p)" ] || kill $(jobs -p) 2>/dev/null' EXIT
# One emulated processor, busy for minutes: beside tests that keep one core busy, too.
if [ "$quick" = no ]; then
  make -C "$build" check-xen-bochs >"$build/check-xen-bochs.log" 2>&1 &
  bochs=$!
fi

say "unit and simulation tests"
find "$build/tests" -name '*.trs' -delete
# What only computes gets the processors that the others leave, and takes none from a test that waits for something: the
# simulations that watch no clock, and the compiler for the fuzz targets.
idle=(chrt --idle 0)
"${idle[@]}" true 2>/dev/null || idle=(nice -n 19)
fuzzer=
grep -q '^fuzz_programs = ' "$build/Makefile" && fuzzer=fuzz-programs
"${idle[@]}" make -C "$build" -k -j"$(nproc)" check-computing $fuzzer >"$build/check-computing.log" 2>&1 &
computing=$!
# One test program at a time: several of them are made of many threads and watch for lost wake-ups. So no -j here.
make -C "$build" check-in-turn 2>&1 | tee "$build/check-tests.log" | grep --line-buffered -E '^(PASS|FAIL|SKIP|ERROR): '
[ "${PIPESTATUS[0]}" -eq 0 ] || failed_log=check-tests.log
wait "$computing" || failed_log=check-computing.log
grep -E '^(PASS|FAIL|SKIP|ERROR): ' "$build/check-computing.log"
count_tests

say "fuzz targets"
# Made already, or here is why not.
[ -z "$fuzzer" ] || must fuzz-programs make -C "$build" -j"$(nproc)" fuzz-programs
if [ -n "${failed_log:-}" ] && [ "$failed" -eq 0 ]; then
  tail -n 30 "$build/$failed_log"
  count "make check" 0 1
fi
if [ -n "$fuzzer" ]; then
  make -C "$build" check-fuzz 2>&1 | tee "$build/check-fuzz.log" | grep -v '^make'
  read -r ok bad < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$build/check-fuzz.log" | tail -n 1)
  count "fuzz targets" "${ok:-0}" "${bad:-1}"
else
  echo "skip fuzz targets: configure found no clang with libFuzzer"
  count "fuzz targets" 0 0 1
fi

# A virtual machine with what this one has not.
lab() { # TARGET
  say "$1"
  make -C "$build" "$1" 2>&1 | tee "$build/$1.log"
  count_lab "$1"
}
wait_for_bochs() {
  say "check-xen-bochs (since the unit tests)"
  wait "$bochs"
  cat "$build/check-xen-bochs.log"
  count_lab check-xen-bochs
}
# Bochs and QEMU's two processors together where there are as many: the host tests want the machine for themselves.
[ "$quick" = yes ] || [ "$(nproc)" -ge 4 ] || wait_for_bochs
lab check-xen-qemu
[ "$quick" = yes ] || [ "$(nproc)" -lt 4 ] || wait_for_bochs

say "host tests"
if [ "$(id -u)" -ne 0 ]; then
  echo "skip host tests: they need root: use sudo ./check.sh"
  count "host tests" 0 1
else
  options=()
  [ "$quick" = yes ] && options=(--only 'guest.*.2' --only 'tool.*.2' --only 'encryption.*' --only 'command.*' --only 'advise.*' --only 'bad.*' --only 'failure.*' --only 'loss.*' --only 'chaos.short')
  [ "$release" = yes ] && options+=(--long)
  tests/host/run --build "$build" "${options[@]}" 2>&1 | tee "$build/check-host.log"
  last=$(tail -n 1 "$build/check-host.log")
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    count "host tests" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "$(grep -c '^skip ' "$build/check-host.log")"
  else
    echo "check.sh: tests/host/run ended without its summary" >&2
    count "host tests" 0 1
  fi
fi

[ "$quick" = yes ] || lab check-rdma

say "manual pages"
ok=0 bad=0
for page in man/*.[1-8]; do
  text=$(man -l --warnings=w -E UTF-8 -Tutf8 "$page" 2>&1 >/dev/null)
  if [ -z "$text" ]; then ok=$((ok + 1)); else bad=$((bad + 1)); echo "FAIL $page: $text"; fi
done
count "manual pages" $ok $bad

if [ "$quick" = no ]; then
  if [ "$(id -u)" -eq 0 ]; then
    say "benchmarks, small (the figures are for interest: nothing is compared)"
    if tests/within 900 "$build/tests/bench/xenspan-bench" --quick; then count benchmarks 1 0; else count benchmarks 0 1; fi
  fi
fi
if [ "$release" = yes ]; then
  # A build from the distribution's archive, without the optional parts.
  must distcheck make -C "$build" -j"$(nproc)" distcheck \
    DISTCHECK_CONFIGURE_FLAGS="CFLAGS=-O1 CXXFLAGS=-O1 FCFLAGS=-O1"
fi
finish
