# vCPUs of a running program go from host to host: its answers stay right, everybody is told where they are, and what
# cannot be done is refused in one line.

migrants=$build/tests/host/guests/migrants

# Starts the guest that knows its answers; it ends when `migrants_end` closes its standard input.
migrants_start() { # HOSTS VCPUS [PROGRAM ARGUMENTS...]
  local hosts=$1 vcpus=$2
  shift 2
  mkfifo input
  "$xenspan" "${bed_options[@]}" run --name moving --vcpus "$vcpus" --hosts "$(bed_hosts "$hosts")" -- "${@:-$migrants}" \
    <input >out 2>err &
  migrants_pid=$!
  exec {migrants_input}>input
  wait_until 60 grep -q ready out err ||
    { echo "the guest does not start"; cat err; kill -TERM "$migrants_pid"; return 1; }
}
migrants_end() {
  exec {migrants_input}>&-
  wait_until 60 gone "$migrants_pid" ||
    { echo "the guest does not end"; cli stats moving | jq -c '.hosts[].threads'; cli destroy moving; return 1; }
  wait "$migrants_pid"
  local status=$?
  cat err
  [ $status -eq 0 ] || { echo "status $status"; return 1; }
}
threads_moved() { sed -n 's/.*: \([0-9]*\) threads, .*/\1/p' moves | awk '{ sum += $1 } END { print sum + 0 }'; }

# back_and_forth HOSTS VCPUS THREADS: so many threads are moved at least, by commands that choose vCPU and host by chance.
back_and_forth() {
  local hosts=$1 vcpus=$2 least=$3 commands=0
  migrants_start "$hosts" "$vcpus" || return 1
  RANDOM=$hosts$vcpus
  : >moves
  while [ "$(threads_moved)" -lt "$least" ]; do
    for _ in 1 2 3 4 5 6 7 8; do
      cli migrate moving $((RANDOM % vcpus)) "$(bed_host $((RANDOM % hosts + 1)))" >>moves 2>>refusals ||
        { cat refusals err; cli destroy moving; return 1; }
      commands=$((commands + 1))
    done
  done
  cat refusals
  migrants_end || return 1
  [ "$(cat out)" = "ok migrants" ] || { echo "it printed:"; cat out; return 1; }
  echo "report: $(threads_moved) threads moved by $commands commands, exact answers; $(tail -n 1 err)"
}
# 10,000 migrations of running threads under load.
many_moves() {
  [ "$long" = yes ] || { echo "only with --long"; return 77; }
  back_and_forth 3 3 10000
}

placed() { # VCPU HOST: in `xenspan list` of every host, and in its xenstore
  local host uuid
  uuid=$(cli list --json | jq -r '.[] | select(.name == "moving") | .uuid')
  for host in a b c; do
    local store=$bed_dir/$host/xenstored/socket base=/tool/xenspan/domain/$uuid
    "$xenspan" --socket "$bed_dir/$host/control" list --json |
      jq -e --argjson vcpu "$1" --arg host "$2" '.[] | select(.name == "moving") | .vcpus[$vcpu].host == $host' >/dev/null ||
      { echo "xenspan list on host $host does not say so"; return 1; }
    [ "$(XENSTORED_PATH=$store xenstore-read "$base/vcpu/$1/host")" = "$2" ] || { echo "not in the xenstore of $host"; return 1; }
    [ "$(XENSTORED_PATH=$store xenstore-read "$base/vcpu/$1/core")" = \
      "$(cli hosts --json | jq -r --arg host "$2" '.[] | select(.name == $host) | .cores[0]')" ] ||
      { echo "the core in the xenstore of $host is another"; return 1; }
  done
}
# The vCPU has moved for everybody: lists, stores, the slices' threads and the hosts' numbers of vCPUs.
place_is_told() {
  migrants_start 3 3 "$guest_probe" sleep 100 3 || return 1
  exec {migrants_input}>&-
  local bad=0
  wait_until 10 placed 1 b || { placed 1 b; bad=1; }
  # Asked of a host that is not the home.
  "$xenspan" --socket "$bed_dir/c/control" migrate moving 1 a || bad=1
  wait_until 10 placed 1 a || { echo "not on host a:"; placed 1 a; bad=1; }
  cli stats moving | jq -c '.hosts[] | .threads' >threads
  jq -e -s 'flatten | length == 4 and all(.[]; .vcpu == 2 or .host == "a")' threads >/dev/null ||
    { echo "the threads are elsewhere:"; cat threads; bad=1; }
  use() { cli hosts --json | jq -e --arg host "$1" --argjson n "$2" '.[] | select(.name == $host) | .vcpus == $n' >/dev/null; }
  wait_until 5 use a 2 && wait_until 5 use b 0 || { echo "the hosts' vCPUs are counted wrongly:"; cli hosts; bad=1; }
  cli migrate moving 1 a | grep -q already || { echo "a move to where it is says something else"; bad=1; }
  cli migrate moving 0 c && cli migrate moving 0 b && cli migrate moving 1 b || bad=1
  wait_until 10 placed 0 b || { placed 0 b; bad=1; }
  # What waits for ever is there too, and can be ended by a signal.
  kill -TERM "$migrants_pid"
  wait_until 10 gone "$migrants_pid" || { echo "SIGTERM does not end it after a move"; bad=1; }
  return $bad
}

# A program that pins itself goes to that vCPU's host, and turns into another program there.
affinity_moves() {
  [ "$(spanning 3 taskset -c 2 nproc)" = 1 ] || { echo "nproc on one processor"; return 1; }
  [ "$(spanning 3 taskset -c 1,2 nproc)" = 2 ] || { echo "nproc on two processors"; return 1; }
  spanning_command 2 --name pinned taskset -c 1 "$guest_probe" sleep 100 1 >out 2>err &
  local pid=$!
  wait_until 20 grep -q ready out || { echo "it does not start"; cat err; return 1; }
  cli stats pinned | jq -c '.hosts[] | .threads' >threads
  cli destroy pinned
  wait "$pid"
  jq -e -s 'flatten | length >= 1 and all(.[]; .host == "b" and .vcpu == 1)' threads >/dev/null ||
    { echo "it is not on host b:"; cat threads; return 1; }
}

migrate_refused() {
  spanning_command 2 --name moving "$guest_probe" sleep 100 >out.guest 2>err.guest &
  local pid=$! bad=0
  wait_until 20 grep -q ready out.guest || { echo "the guest does not start"; cat err.guest; return 1; }
  refused 1 'no vCPU 2: its vCPUs are 0 to 1' migrate moving 2 a || bad=1
  refused 1 'host c is not a member of domain moving: its hosts are a, b' migrate moving 1 c || bad=1
  refused 1 'host .* is not a member' migrate moving 1 'no/host' || bad=1
  refused 1 'no free core .*--alone' migrate moving 1 a --alone || bad=1
  refused 1 'no such domain: nothing-here' migrate nothing-here 0 a || bad=1
  refused 2 'VCPU' migrate moving one a || bad=1
  refused 2 'required' migrate moving 1 || bad=1
  if as_nobody cli migrate moving 1 a 2>err; then echo "nobody moved root's vCPU"; bad=1; fi
  grep -q 'belongs to root' err || { cat err; bad=1; }
  cli stats moving | jq -e '[.hosts[].threads[] | select(.vcpu == 1) | .host] | all(. == "b")' >/dev/null ||
    { echo "a refused move moved something"; bad=1; }
  cli destroy moving
  wait "$pid"
  refused 1 'domain moving is not running' migrate moving 1 a || bad=1
  return $bad
}

cases+=("migrate.refusals migrate_refused" "migrate.told place_is_told" "migrate.affinity affinity_moves"
  "migrate.2 back_and_forth 2 2 300" "migrate.3 back_and_forth 3 3 300" "migrate.many many_moves")
