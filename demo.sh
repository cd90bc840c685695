#!/usr/bin/env bash
# demo.sh: on a fresh Debian 12 machine, as root: installs what is missing, builds, starts three hosts (network
# namespaces), runs real multithreaded programs across them, compares every result with the same program's on the bare
# machine, and ends with a table. DEMO_BYTES sets the size of the input of the compressors (default 256 MiB).
set -u
cd "$(dirname "$0")" || exit 2
top=$PWD
build=${BUILD:-$top/build}  # BUILD names another folder
bytes=${DEMO_BYTES:-268435456}
here=$top/tests/host
began=$SECONDS

if [ "$(id -u)" -ne 0 ]; then
  echo "demo.sh: needs root, to install packages and to make network namespaces: use sudo ./demo.sh" >&2
  exit 1
fi
say() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - began)); }
step() { # NAME COMMAND...: the output goes to a file
  local name=$1
  shift
  printf '   %s ... ' "$*"
  if "$@" >"$build/demo-$name.log" 2>&1; then echo done; else
    echo failed
    tail -n 30 "$build/demo-$name.log"
    exit 1
  fi
}

say "packages"
tests/install-packages || exit 1
say "build"
mkdir -p "$build"
[ -x configure ] || step autogen ./autogen.sh
[ -f "$build/config.status" ] || step configure env -C "$build" "$top/configure"
step make make -C "$build" -j"$(nproc)"

work=$(mktemp -d "${TMPDIR:-/tmp}/xenspan-demo.XXXXXX")
bed_prefix=demo
. "$here/lib.sh"
guests=$build/tests/bench/guests
finish() {
  local status=$?
  trap - EXIT
  say "taking the hosts down"
  bed_down
  rm -rf "$work"
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

say "three hosts"
bed_down
bed_up 3 || exit 1
cli hosts

rows=()
wrong=0
# row NAME HOSTS SECONDS NATIVE RESULT
row() {
  rows+=("$(printf '%-28s %5s %9s %9s   %s' "$1" "$2" "$3" "$4" "$5")")
  printf '   %-28s %s host(s): %s s, natively %s s: %s\n' "$1" "$2" "$3" "$4" "$5"
  case $5 in same* | passed*) ;; *) wrong=$((wrong + 1)) ;; esac
}
# timed FILE COMMAND...: standard output to FILE, the seconds into $seconds
timed() {
  local file=$1 start=$EPOCHREALTIME status
  shift
  "$@" >"$file"
  status=$?
  seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  return $status
}
on_cores() { taskset -c "0-$(($1 < $(nproc) ? $1 - 1 : $(nproc) - 1))" "${@:2}"; }

say "Debian's compressors on $((bytes >> 20)) MiB"
printf '   making the input ... '
"$build/tests/host/make_text" "$bytes" >"$work/input" || exit 1
echo done
compressor() { # NAME COMMAND with @ for the number of threads
  local name=$1 hosts native
  shift
  timed "$work/native" "${@//@/2}" || { row "$name" - - - "fails natively"; return; }
  native=$seconds
  for hosts in 2 3; do
    if ! timed "$work/spanning" spanning "$hosts" "${@//@/$hosts}"; then
      row "$name" "$hosts" "$seconds" "$native" "FAILED"
    elif cmp -s "$work/native" "$work/spanning"; then
      row "$name" "$hosts" "$seconds" "$native" "same bytes"
    else
      row "$name" "$hosts" "$seconds" "$native" "DIFFERENT"
    fi
  done
  rm -f "$work/native" "$work/spanning"
}
compressor "pigz" pigz -p @ -n -c "$work/input"
compressor "pbzip2" pbzip2 -p@ -k -c "$work/input"
compressor "xz -1 -T" xz -1 -T@ -c "$work/input"
compressor "zstd -T" zstd -q -T@ -c "$work/input"

# 7zr's benchmark packs and unpacks data of its own and checks the checksums itself.
timed "$work/native" "$seven_zip" b -mmt=2 -md20 1
native=$seconds
for hosts in 2 3; do
  if timed "$work/spanning" spanning "$hosts" "$seven_zip" b "-mmt=$hosts" -md20 1 && grep -q '^Tot:' "$work/spanning"; then
    row "7zr b -mmt" "$hosts" "$seconds" "$native" "passed its own check"
  else
    row "7zr b -mmt" "$hosts" "$seconds" "$native" "FAILED"
  fi
done

say "an OpenMP program and a std::thread program"
member() { sed -n "s/.* $2=\([^ ]*\).*/\1/p" "$1"; }
program() { # FILE TITLE ARGUMENTS...: prints its own seconds and checksum
  local file=$1 title=$2 hosts native
  shift 2
  for hosts in 1 2; do
    on_cores "$hosts" "$guests/$file" "$@" >"$work/native" || { row "$title" "$hosts" - - "fails natively"; continue; }
    native=$(member "$work/native" seconds)
    if ! spanning "$hosts" "$guests/$file" "$@" >"$work/spanning"; then
      row "$title" "$hosts" - "$(printf %.1f "$native")" "FAILED"
      continue
    fi
    local result=DIFFERENT
    [ "$(member "$work/native" checksum)" = "$(member "$work/spanning" checksum)" ] && result="same checksum"
    [ "$(member "$work/spanning" threads)" = "$hosts" ] || result="WRONG NUMBER OF THREADS"
    row "$title" "$hosts" "$(printf %.1f "$(member "$work/spanning" seconds)")" "$(printf %.1f "$native")" "$result"
  done
}
program matmul "OpenMP matmul, dynamic" 1024 10
program matmul-static "OpenMP matmul, static" 1024 10
program primes "std::thread primes, dynamic"
program primes-static "std::thread primes, static"

say "hosts come and go: c is added to a and b, then a is drained, the program's home, by xenstore-write"
now() { awk '{ print $1 }' /proc/uptime; }
ask_member() { # HOST WORD STATE: waits for the state
  local node=/tool/xenspan/domain/$uuid/member/$1
  echo "$(now) $2 $1" >>"$work/events"
  XENSTORED_PATH=$bed_dir/a/xenstored/socket xenstore-write "$node/request" "$2"
  is_so() { [ "$(XENSTORED_PATH=$bed_dir/a/xenstored/socket xenstore-read "$node/state")" = "$3" ]; }
  wait_until 60 is_so "$@" || { echo "host $1 does not become $3"; return 1; }
  echo "$(now) $1 $3" >>"$work/events"
}
# What it has open other hosts can open as well: so the home can move.
elastic() {
  only_standard_files "$xenspan" "${bed_options[@]}" run --name pieces --vcpus 3 --hosts a,b -- \
    "$guests/pieces" 3 4000000 "$work/enough" </dev/null >"$work/samples" 2>"$work/pieces-err" &
  local program=$!
  wait_until 60 test -s "$work/samples"
  uuid=$(cli list --json | jq -r '.[] | select(.name == "pieces") | .uuid')
  sleep 3
  ask_member c add active && sleep 4 && ask_member a drain left && sleep 3
  local asked=$?
  touch "$work/enough"
  wait "$program" && [ $asked = 0 ] || { cat "$work/pieces-err"; return 1; }
  "$here/throughput_svg" "$work/events" "$work/samples" >"$build/demo-throughput.svg"
}
if elastic; then
  row "pieces of work, a b, +c, -a" 2-3 - - "same answers: $(sed -n "s,^\(pieces=[0-9]*\) by .*,\1,p" "$work/samples") done once each"
  echo "   throughput over time: $build/demo-throughput.svg"
else
  row "pieces of work, a b, +c, -a" 2-3 - - "FAILED"
fi

say "a host is lost: b is killed while the program runs on a, b and c"
lost_host() {
  local program status uuid sentence stay
  mkfifo "$work/stay"
  "$xenspan" "${bed_options[@]}" run --name lost --vcpus 3 --hosts a,b,c -- "$guests/pieces" 3 4000000 \
    <"$work/stay" >"$work/lost" 2>"$work/lost-err" &
  program=$!
  exec {stay}>"$work/stay"
  wait_until 60 test -s "$work/lost"
  kill -KILL "$(bed_daemon_pid b)"
  wait_until 60 gone "$program" || { kill -KILL "$program"; return 1; }
  wait "$program"
  status=$?
  exec {stay}>&-
  cat "$work/lost-err"
  uuid=$(cli list --all --json | jq -r '.[] | select(.name == "lost") | .uuid')
  # Every host that is left tells the same.
  told() { XENSTORED_PATH=$bed_dir/c/xenstored/socket xenstore-read "/tool/xenspan/domain/$uuid/error" | grep 'lost host b'; }
  wait_until 30 told || return 1
  sentence=$(told)
  bed_restart_daemon b
  [ $status = 125 ] && grep -qF "$sentence" "$work/lost-err" && grep -q 'vCPU 1 ran there.*nobody else held' "$work/lost-err"
}
if lost_host; then
  row "b killed" 3 - - "passed: it says what was lost"
else
  row "b killed" 3 - - "FAILED"
fi

say "result"
printf '%-28s %5s %9s %9s   %s\n' program hosts seconds natively result
printf '%s\n' "${rows[@]}"
cat <<END
(natively: the compressors with two threads; the other programs with as many threads as hosts. All hosts here share
$(nproc) core(s), so three hosts cannot be faster than two.)
END
if [ "$wrong" -ne 0 ]; then
  echo "$wrong result(s) wrong"
  exit 1
fi
echo "all results are the same as on one machine"
