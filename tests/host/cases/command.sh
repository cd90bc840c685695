# The command line: who the guest is, what reaches it, what can be seen of it.

user_is_kept() {
  id nobody >/dev/null || return 77
  cat >expected <<END
$(id -u nobody) $(id -g nobody) $PWD 0027
END
  chmod 644 expected
  # As an unprivileged user: identity, folder and umask must be that user's, and a file it makes must be its own.
  # shellcheck disable=SC2016
  (umask 0027; as_nobody spanning_command 2 "$guest_probe" identity made) >seen || { echo "exit status $?"; cat seen; return 1; }
  diff expected seen || { echo "(< expected)"; return 1; }
  [ "$(stat -c %U made)" = nobody ] || { echo "the file belongs to $(stat -c %U made)"; return 1; }
  # What that user may not read natively, it may not read here.
  echo secret >private; chmod 600 private
  if as_nobody spanning_command 2 /bin/cat "$PWD/private" >stolen 2>&1; then echo "read a file of root"; return 1; fi
  ! grep -q secret stolen
}

environment_is_kept() {
  XENSPAN_TEST_WORD=kept spanning 2 /usr/bin/env >seen || return 1
  grep -qx XENSPAN_TEST_WORD=kept seen || { echo "an environment variable is lost"; return 1; }
}

exit_status_is_kept() {
  spanning 2 "$guest_probe" exit 37
  local status=$?
  [ $status -eq 37 ] || { echo "status $status, not 37"; return 1; }
}

crash_is_reported() {
  spanning 2 "$guest_probe" crash 2>err
  local status=$?
  cat err
  [ $status -eq 139 ] || { echo "status $status, not 139"; return 1; }
  grep -Eiq 'host' err && grep -Eiq 'vcpu' err && grep -Eq '0x[0-9a-f]+' err || { echo "no host, vCPU or address in the report"; return 1; }
}

# A signal to the command ends the guest and the status says so.
signal_ends_it() {
  local signal=$1 number=$2
  spanning_command 2 "$guest_probe" sleep 60 >out 2>err &
  local pid=$!
  wait_until 20 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  kill -"$signal" "$(command_pid "$pid")"
  wait "$pid"
  local status=$?
  [ $status -eq $((128 + number)) ] || { echo "status $status, not $((128 + number))"; cat err; return 1; }
}

# A guest with a handler of its own gets the signal.
signal_is_handled() {
  spanning_command 2 "$guest_probe" handle 60 >out 2>err &
  local pid=$!
  wait_until 20 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  kill -USR1 "$(command_pid "$pid")"
  wait "$pid"
  local status=$?
  [ $status -eq 10 ] && grep -q 'signal 10' out || { echo "status $status, not 10"; cat out err; return 1; }
}

seen_from_outside() {
  spanning_command 2 --name seen "$guest_probe" sleep 60 >out 2>err &
  local pid=$!
  wait_until 20 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  local bad=0
  cli list >list || bad=1
  grep -q seen list || { echo "not in xenspan list:"; cat list; bad=1; }
  cli stats seen >stats.json || { echo "xenspan stats fails"; bad=1; }
  jq -e . stats.json >/dev/null || { echo "xenspan stats prints no JSON:"; head -c 300 stats.json; bad=1; }
  jq -e '[.. | objects | select(has("faults"))] | length >= 2' stats.json >/dev/null || { echo "stats name fewer than two hosts with faults"; bad=1; }
  cli top -b -n 1 >top || { echo "xenspan top -b fails"; bad=1; }
  grep -q seen top || { echo "not in xenspan top:"; cat top; bad=1; }
  cli destroy seen || { echo "xenspan destroy fails"; bad=1; }
  wait "$pid"
  local status=$?
  [ $status -ne 0 ] || { echo "status 0 after destroy"; bad=1; }
  cli list >list
  ! grep -q seen list || { echo "still in xenspan list"; bad=1; }
  return $bad
}

# The number of threads on each vCPU, in `xenspan list -v` and in the xenstore of every host.
threads_are_counted() {
  # Five threads and the first one on two vCPUs: each goes to the emptier one.
  spanning_command 2 --name counted "$guest_probe" sleep 60 5 >out 2>err &
  local pid=$! bad=0 host uuid
  wait_until 20 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  uuid=$(cli list --json | jq -r '.[] | select(.name == "counted") | .uuid')
  listed() { cli list -v | awk '$1 == "counted" && NF == 5 { print $2, $3, $5 }'; }
  in_store() { # HOST
    local n
    for n in 0 1; do XENSTORED_PATH=$bed_dir/$1/xenstored/socket xenstore-read "/tool/xenspan/domain/$uuid/vcpu/$n/threads"; done
  }
  all_counted() { [ "$(listed)" = "$(printf '0 a 3\n1 b 3')" ]; }
  stored() { [ "$(in_store "$1")" = "$(printf '%s\n%s' "$2" "$2")" ]; }
  wait_until 10 all_counted || { echo "xenspan list -v:"; cli list -v; bad=1; }
  for host in a b; do
    wait_until 10 stored $host 3 || { echo "xenstore of $host has:"; in_store $host; bad=1; }
  done
  cli destroy counted
  wait "$pid"
  for host in a b; do
    wait_until 10 stored $host 0 || { echo "at the end the xenstore of $host has:"; in_store $host; bad=1; }
  done
  return $bad
}

stats_at_the_end() {
  spanning_command 2 --stats=stats.json "$guest_probe" exit 0 || { echo "exit status $?"; return 1; }
  jq -e . stats.json >/dev/null || { echo "no JSON"; head -c 300 stats.json; return 1; }
}

# Memory that is gone when the statistics are made still has its name.
stats_name_freed_memory() {
  # Without prefetch each of its pages has faults of its own.
  spanning_command 2 --prefetch=off --stats=stats.json "$guest_probe" free || { echo "exit status $?"; return 1; }
  jq -r '.hottest[].name' stats.json >names
  cat names
  grep -Eq '^\[anon 0x[0-9a-f]+\](\+0x[0-9a-f]+)? \(freed\)$' names || { echo "the freed pages are not named"; return 1; }
  ! grep -q unmapped names
}

hosts_are_listed() {
  cli hosts >hosts || return 1
  local host
  for host in $(bed_hosts 3 | tr , ' '); do
    grep -qw -- "$host" hosts || { echo "$host is missing:"; cat hosts; return 1; }
  done
}

# A message there and its answer take two delays at least, on every kernel.
testbed_delay() {
  local prefix=${bed_prefix}d start status
  "$xenspan" testbed up 2 --delay 20ms --prefix "$prefix" || return 1
  # Nobody listens on the port of discard(9): the refusal is the answer.
  start=$EPOCHREALTIME
  ip netns exec "$prefix-a" bash -c ': </dev/tcp/10.88.0.2/9' 2>refusal
  awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print b - a, "s"; exit b - a < 0.04 }'
  status=$?
  "$xenspan" --socket "/run/xenspan/testbed-$prefix/a/control" run --hosts a,b --vcpus 2 -- nproc >count || status=1
  "$xenspan" testbed down --prefix "$prefix" || status=1
  rm -f "/run/xenspan/testbed-$prefix.lock"
  grep -q refused refusal || { cat refusal; return 1; }
  [ "$(cat count)" = 2 ] || { echo "the program across the delay printed:"; cat count; return 1; }
  ! pgrep -f "testbed wire .*--prefix $prefix " >/dev/null || { echo "the wire is left behind"; return 1; }
  return $status
}

cases+=("command.user user_is_kept" "command.environment environment_is_kept" "command.status exit_status_is_kept"
  "command.crash crash_is_reported" "command.sigint signal_ends_it INT 2" "command.sigterm signal_ends_it TERM 15"
  "command.sigusr1.handled signal_is_handled" "command.seen seen_from_outside" "command.stats stats_at_the_end"
  "command.stats.freed stats_name_freed_memory" "command.testbed.delay testbed_delay"
  "command.hosts hosts_are_listed" "command.threads threads_are_counted")
