# Things that break while a domain runs. The command must say which host was lost, and nothing may be left behind.

start_work() { # a domain over 3 hosts that keeps its pages moving
  spanning_command 3 --name "$1" "$guest_probe" work 120 >out 2>err &
  work_pid=$!
  wait_until 30 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
}

ended_by_loss() { # HOST
  local status
  if ! wait_until 30 gone "$work_pid"; then
    echo "the command still runs 30 s later"
    kill -KILL "$work_pid"
    return 1
  fi
  wait "$work_pid"
  status=$?
  cat err
  [ $status -eq 125 ] || { echo "status $status, not 125"; return 1; }
  grep -qw -- "$1" err || { echo "the message does not name host $1"; return 1; }
}

next_run_works() {
  bed_ensure || { echo "the test bed does not come back"; return 1; }
  spanning 3 "$guest_probe" exit 5
  local status=$?
  [ $status -eq 5 ] || { echo "the next run ends with status $status, not 5"; return 1; }
}

worker_killed() {
  local host
  host=$(bed_host "$1")
  start_work lost || return 1
  kill -KILL "$(slice_pid "$host")"
  ended_by_loss "$host" || return 1
  wait_until 10 no_slices || { echo "slices are left:"; pgrep -af xenspan-slice; return 1; }
  next_run_works
}

# A host that does not answer: its slice is stopped, so every other thread waits for a page for ever. Whoever ends the
# domain then must not wait as well.
no_progress() { # FILE: nothing was added to it for a second
  local bytes
  bytes=$(stat -c %s "$1")
  sleep 1
  [ "$(stat -c %s "$1")" = "$bytes" ]
}
# Stops the slice at a moment when the others need a page of it. They may have all, then it goes on for a while.
stopped_in_need() {
  kill -STOP "$1"
  no_progress out && return
  kill -CONT "$1"
  return 1
}
ended_while_waiting() { # STATUS COMMAND...: what ends the domain
  local expected=$1 slice status
  shift
  spanning_command 2 --name waiting "$guest_probe" share >out 2>err &
  work_pid=$!
  wait_until 30 grep -q going out || { echo "the guest does not start"; cat err; return 1; }
  slice=$(slice_pid b)
  wait_until 40 stopped_in_need "$slice" || { echo "the guest goes on without its host"; kill -KILL "$work_pid"; return 1; }
  "$@"
  if ! wait_until 8 gone "$work_pid"; then
    echo "the command still runs 8 s later"
    kill -CONT "$slice"
    kill -KILL "$work_pid"
    return 1
  fi
  wait "$work_pid"
  status=$?
  cat err
  [ $status -eq "$expected" ] || { echo "status $status, not $expected"; return 1; }
  wait_until 10 no_slices || { echo "slices are left:"; pgrep -af xenspan-slice; return 1; }
}
signal_waiting() { kill -"$1" "$work_pid"; }
destroy_waiting() { cli destroy waiting; }
# A look at its pages must not keep the domain from ending either.
look_and_signal_waiting() {
  timeout 20 "$xenspan" "${bed_options[@]}" stats waiting >stats.json
  kill -TERM "$work_pid"
}

# The terminal goes away: the domain must not stay.
command_killed() {
  start_work lost || return 1
  kill -KILL "$(command_pid "$work_pid")"
  wait "$work_pid"
  wait_until 10 no_slices || { echo "slices are left:"; pgrep -af xenspan-slice; return 1; }
  cli list >list
  ! grep -q lost list || { echo "still listed"; cat list; return 1; }
  next_run_works
}

# Peers that are none. They are dropped with a log line and the daemon goes on.
bad_peer_at_daemon() {
  local host kind before after bad=0
  host=$(bed_host 2)
  for kind in noise zeros long hello nocert wrongcert silent; do
    before=$(bed_log "$host" | wc -l)
    from_host 1 "$build/tests/host/bad_peer" "$(bed_address "$host")" "$(bed_port "$host")" $kind || bad=1
    after=$(bed_log "$host" | wc -l)
    [ "$after" -gt "$before" ] || { echo "$kind: no line in the log"; bad=1; }
  done
  [ $bad -eq 0 ] && next_run_works
}

# The same at the port where a running slice accepts its peers: the domain must not notice.
bad_peer_at_slice() {
  local host kind port bad=0
  host=$(bed_host 2)
  spanning_command 2 --name target "$guest_probe" handle 60 >out 2>err &
  work_pid=$!
  wait_until 30 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  [ -n "$(slice_ports "$host")" ] || { echo "no port of the slice is found"; bad=1; }
  for port in $(slice_ports "$host"); do
    for kind in noise zeros long; do
      from_host 1 "$build/tests/host/bad_peer" "$(bed_address "$host")" "$port" $kind || bad=1
    done
  done
  kill -USR1 "$(command_pid "$work_pid")"
  wait "$work_pid"
  local status=$?
  [ $status -eq 10 ] || { echo "the domain ended with status $status, not 10"; cat err; return 1; }
  return $bad
}

# A daemon with another cluster key is not let in, and both sides say why.
wrong_key() {
  local before
  before=$(bed_log a | wc -l)
  bed_start_stranger "$dir" || { echo "cannot start a daemon with another key"; return 1; }
  local bad=0
  wait_until 15 grep -Eiq 'key|certificate|authenticat|verify' stranger.log || { echo "the stranger's log does not name the key:"; cat stranger.log; bad=1; }
  bed_log a | tail -n +$((before + 1)) | grep -Eiq 'key|certificate|authenticat|verify' || { echo "host a's log says nothing of it"; bed_log a | tail -n 3; bad=1; }
  cli hosts >hosts
  ! grep -qw stranger hosts || { echo "the stranger is a host now:"; cat hosts; bad=1; }
  bed_stop_stranger
  [ $bad -eq 0 ] && next_run_works
}

cases+=("failure.worker.home worker_killed 1"
  "failure.waiting.sigterm ended_while_waiting 143 signal_waiting TERM"
  "failure.waiting.sigint ended_while_waiting 130 signal_waiting INT"
  "failure.waiting.destroy ended_while_waiting 137 destroy_waiting"
  "failure.waiting.stats ended_while_waiting 143 look_and_signal_waiting" "failure.command command_killed"
  "failure.peer.daemon bad_peer_at_daemon" "failure.peer.slice bad_peer_at_slice" "failure.key wrong_key")
