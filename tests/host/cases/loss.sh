# A host is lost while a domain runs: the others agree on it, the one that was only cut off stops, and everybody is told
# what was lost. Uses start_work and next_run_works of failures.sh.

# What the xenstore of HOST says about the end of the domain `lost`; empty while it runs.
told_in_store() { # HOST
  local store=$bed_dir/$1/xenstored/socket uuid
  for uuid in $(XENSTORED_PATH=$store xenstore-list /tool/xenspan/domain 2>/dev/null); do
    [ "$(XENSTORED_PATH=$store xenstore-read "/tool/xenspan/domain/$uuid/name" 2>/dev/null)" = "$lost_name" ] || continue
    XENSTORED_PATH=$store xenstore-read "/tool/xenspan/domain/$uuid/error" 2>/dev/null
  done
}
told() { told_in_store "$1" | grep -Eq -- "$2"; }
everywhere() { # PATTERN HOST...
  local pattern=$1 host bad=0
  shift
  for host in "$@"; do
    wait_until 30 told "$host" "$pattern" || { echo "the xenstore of $host does not say $pattern:"; told_in_store "$host"; bad=1; }
  done
  return $bad
}
loss_start() { # HOSTS
  lost_name=lost-$RANDOM$RANDOM
  spanning_command "$1" --name "$lost_name" "$guest_probe" work 300 >out 2>err &
  work_pid=$!
  wait_until 60 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  # All hosts have heard each other by then (a beat is 150 ms): who has not heard another one yet cannot say that it misses it.
  sleep 2
  loss_began=$EPOCHREALTIME
}
loss_ended() { # PATTERN...: of what the command prints
  local status pattern bad=0
  if ! wait_until 60 gone "$work_pid"; then
    echo "the command still runs 60 s later"
    kill -KILL "$work_pid"
    return 1
  fi
  echo "report: told after $(awk -v a="$loss_began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s: $(head -c 600 err)"
  wait "$work_pid"
  status=$?
  [ $status -eq 125 ] || { echo "status $status, not 125"; bad=1; }
  for pattern in "$@"; do grep -Eq -- "$pattern" err || { echo "the command does not say $pattern"; bad=1; }; done
  return $bad
}
all_gone() { wait_until 30 no_slices || { echo "slices are left:"; pgrep -af xenspan-slice; return 1; }; }
link() { ip netns exec "$(bed_netns "$1")" ip link set "$(bed_interface "$1")" "$2"; }

loss_daemon() {
  loss_start 3 || return 1
  kill -KILL "$(bed_daemon_pid b)"
  loss_ended 'lost host b \(epoch 2, agreed on by a and c\)' 'vCPU 1 ran there' 'nobody else held: gfn' || return 1
  everywhere 'lost host b \(epoch 2, agreed on by a and c\)' a c || return 1
  all_gone || return 1
  bed_restart_daemon b && next_run_works
}
loss_slice() {
  loss_start 3 || return 1
  kill -KILL "$(slice_pid c)"
  loss_ended 'lost host c.*: its slice ended with signal 9' 'vCPU 2 ran there' 'nobody else held: gfn' || return 1
  everywhere 'lost host c.*signal 9' a b c || return 1
  all_gone && next_run_works
}
# The one that is cut off stops by itself, while it is cut off.
loss_cut() {
  loss_start 3 || return 1
  link c down || return 1
  local bad=0
  loss_ended 'lost host c \(epoch 2, agreed on by a and b\)' 'vCPU 2 ran there' || bad=1
  wait_until 60 no_slice_on c || { echo "the slice on the host that is cut off goes on"; bad=1; }
  fenced_at_c() { bed_log c | grep -q 'fenced: host c was cut off from a and b'; }
  wait_until 60 fenced_at_c || { echo "host c's log:"; bed_log c | tail -n 40; bad=1; }
  everywhere 'lost host c \(epoch 2' a b || bad=1
  everywhere 'cut off|lost host a' c || bad=1
  link c up
  all_gone && [ $bad -eq 0 ] && next_run_works
}
# Two hosts: the home decides.
loss_two() {
  loss_start 2 || return 1
  link b down || return 1
  local bad=0
  loss_ended 'lost host b \(epoch 2, agreed on by a\)' || bad=1
  wait_until 60 no_slice_on b || { echo "the slice on the host that is cut off goes on"; bad=1; }
  link b up
  all_gone && [ $bad -eq 0 ] && next_run_works
}
loss_home() {
  loss_start 3 || return 1
  kill -KILL "$(bed_daemon_pid a)"
  wait_until 60 gone "$work_pid" || { echo "the command still runs"; kill -KILL "$work_pid"; return 1; }
  wait "$work_pid"
  everywhere "lost host a, the domain's home \\(epoch 2, agreed on by b and c\\)" b c || return 1
  all_gone || return 1
  bed_restart_daemon a && next_run_works
}
# A home without a majority stops, and says so.
loss_home_cut() {
  loss_start 3 || return 1
  link a down || return 1
  local bad=0
  loss_ended 'cut off from b and c: without a majority|lost hosts? [bc]' || bad=1
  everywhere "lost host a" b c || bad=1
  link a up
  all_gone && [ $bad -eq 0 ] && next_run_works
}
# The daemon stands still, so that nobody renews the lease of its slice: the slice stops by itself.
stands_still() { [ "$(awk '/^State:/ { print $2 }' "/proc/$1/status")" = T ]; }
loss_daemon_stands() {
  local daemon slice bad=0
  loss_start 3 || return 1
  daemon=$(bed_daemon_pid b) slice=$(slice_pid b)
  kill -STOP "$daemon"
  wait_until 60 stands_still "$slice" || { echo "the slice goes on without a lease"; bad=1; }
  loss_ended 'lost host b \(epoch 2, agreed on by a and c\)' || bad=1
  kill -CONT "$daemon"
  all_gone && [ $bad -eq 0 ] && next_run_works
}
# A moment is no loss.
loss_moment() {
  local daemon i
  migrants_start 3 3 || return 1
  for i in 1 2 3; do
    daemon=$(bed_daemon_pid "$(bed_host $((i % 3 + 1)))")
    kill -STOP "$daemon"
    sleep 0.3
    kill -CONT "$daemon"
  done
  member_end
}

# --- hosts that nobody has to miss ---

# Host c runs no vCPU: the domain goes on without it, and everybody is told.
survived_at() { # HOST PATTERN
  [ "$(store_of "$1" xenstore-read "$(member_node c state)" 2>/dev/null)" = failed ] &&
    store_of "$1" xenstore-read "$(member_node c error)" 2>/dev/null | grep -Eq -- "$2"
}
survived() { # PATTERN HOST...
  local pattern=$1 host
  shift
  for host in "$@"; do
    wait_until 60 survived_at "$host" "$pattern" && continue
    echo "the xenstore of $host says of c: $(store_of "$host" xenstore-read "$(member_node c state)"): $(store_of "$host" xenstore-read "$(member_node c error)")"
    cat err
    for host in a b c; do bed_log "$host" | tail -n 20; done
    return 1
  done
  cli list | grep -q 'c:failed' || { echo "the list does not show it:"; cli list; return 1; }
}
goes_on='no vCPU ran there and no page was held there alone: the domain goes on'

# Two vCPUs on hosts a and b; c joins, and there is none for it.
idle_start() {
  migrants_start 2 2 || return 1
  uuid=$(moving_uuid)
  # The epochs: c joins in the second, and the third is without it.
  member_ask c add && member_becomes c active && vcpus_on c 0 && return 0
  echo "c has a vCPU, or is no member"
  cli destroy moving
  exec {migrants_input}>&-
  return 1
}
# Killed with its daemon, added again, and then its slice is killed.
loss_of_idle_host() {
  idle_start || return 1
  local bad=0
  kill -KILL "$(bed_daemon_pid c)"
  survived "lost host c \\(epoch 3, agreed on by a and b\\): .*; $goes_on" a b || bad=1
  [ $bad = 1 ] || bed_restart_daemon c || bad=1
  if [ $bad = 0 ]; then
    member_ask c add && member_becomes c active || bad=1
    cli migrate moving 1 c && cli migrate moving 1 b && cli migrate moving 0 b && cli migrate moving 0 a || bad=1
  fi
  if [ $bad = 0 ]; then
    member_ask c drain && member_becomes c left && member_ask c add && member_becomes c active || bad=1
    kill -KILL "$(slice_pid c)"
    survived "lost host c .*: its slice ended with signal 9; $goes_on" a b c || bad=1
    cli migrate moving 1 c 2>refusal && { echo "a vCPU moved to a host that is lost"; bad=1; }
    cli migrate moving 1 a || bad=1
  fi
  member_end && [ $bad = 0 ]
}
# A host may be added as soon as its xenspand is there; before, or while connections from before are closed, that fails.
comes_back() {
  member_is c active && return 0
  [ "$(member_tells c state)" != failed ] || [ -n "$(member_tells c request)" ] || member_ask c add
  return 1
}
# It goes silent, and the others go on; its own slice ends by itself while it is cut off.
loss_of_idle_host_cut() {
  idle_start || return 1
  local bad=0
  link c down
  survived "lost host c \\(epoch 3, agreed on by a and b\\): .*; $goes_on" a b || bad=1
  wait_until 60 no_slice_on c || { echo "the slice on the host that is cut off goes on"; bad=1; }
  cli migrate moving 1 a || bad=1
  link c up
  wait_until 60 comes_back || { echo "c does not come back"; member_becomes c active; bad=1; }
  [ $bad = 1 ] || cli migrate moving 1 c || bad=1
  member_end && [ $bad = 0 ]
}
# Its vCPU has moved away, what that wrote has not.
loss_of_pages() {
  spanning_command 3 --name moving "$guest_probe" hold 8 >out 2>err &
  work_pid=$!
  wait_until 60 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  cli migrate moving 2 a || { cli destroy moving; return 1; }
  loss_began=$EPOCHREALTIME
  kill -KILL "$(bed_daemon_pid c)"
  loss_ended 'lost host c \(epoch 2, agreed on by a and b\)' 'no vCPU ran there' 'pages that nobody else held: gfn' || return 1
  all_gone || return 1
  bed_restart_daemon c && next_run_works
}

cases+=("loss.daemon loss_daemon" "loss.slice loss_slice" "loss.cut loss_cut" "loss.two loss_two" "loss.home loss_home"
  "loss.home.cut loss_home_cut" "loss.stands loss_daemon_stands" "loss.moment loss_moment" "loss.idle loss_of_idle_host"
  "loss.idle.cut loss_of_idle_host_cut" "loss.pages loss_of_pages")
