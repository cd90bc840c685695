# Hosts are added to a running program and drained from it: its answers stay right, every host's xenstore tells the same,
# what cannot be done is refused beside the request, and nothing is left behind.

moving_uuid() { cli list --json | jq -r '.[] | select(.name == "moving" and .state == "running") | .uuid'; }
member_node() { echo "/tool/xenspan/domain/$uuid/member/$1/$2"; }
store_of() { XENSTORED_PATH=$bed_dir/$1/xenstored/socket "${@:2}"; }
member_ask() { store_of a xenstore-write "$(member_node "$1" request)" "$2"; } # HOST WORD
# A node that is empty or not there prints nothing.
member_tells() { store_of a xenstore-read "$(member_node "$1" "$2")" 2>/dev/null; } # HOST NODE
member_is() { # HOST STATE, in every host's xenstore, and nothing waits
  local at
  for at in a b c; do
    [ "$(store_of "$at" xenstore-read "$(member_node "$1" state)" 2>/dev/null)" = "$2" ] || return 1
  done
  [ -z "$(member_tells "$1" request)" ]
}
member_becomes() { # HOST STATE
  wait_until 60 member_is "$1" "$2" && return 0
  echo "host $1 does not become $2:"
  store_of a xenstore-ls -f "/tool/xenspan/domain/$uuid/member" | grep -v counters
  for at in a b c; do bed_log "$at" | tail -n 8; done
  cat err
  return 1
}
member_refuses() { # HOST WORD PATTERN
  member_ask "$1" "$2"
  wait_until 30 eval '[ -z "$(member_tells '"$1"' request)" ]' || { echo "\"$2\" of $1 is not answered"; return 1; }
  member_tells "$1" error | grep -q "$3" && return 0
  echo "\"$2\" of host $1: \"$(member_tells "$1" error)\", not $3"
  return 1
}
vcpus_on() { cli list --json | jq -e --arg host "$1" --argjson n "$2" \
  '.[] | select(.name == "moving") | [.vcpus[] | select(.host == $host)] | length == $n' >/dev/null; }

member_end() { # the program's own end: right answers, or it says which one is wrong
  migrants_end || return 1
  [ "$(cat out)" = "ok migrants" ] || { echo "it printed:"; cat out; return 1; }
}

# c joins and b leaves while the program runs on a and b, asked for by nothing but xenstore-write.
add_and_drain() {
  migrants_start 2 3 || return 1
  uuid=$(moving_uuid)
  local bad=0
  member_ask c add
  { member_becomes c active && wait_until 60 vcpus_on c 1 || { echo "no vCPU went to c"; false; }; } || bad=1
  if [ $bad = 0 ]; then
    member_ask b drain
    member_becomes b left || bad=1
    vcpus_on b 0 || { echo "b has vCPUs"; bad=1; }
    wait_until 10 no_slice_on b || { echo "b has a slice"; bad=1; }
  fi
  member_end && [ $bad = 0 ]
}

# The commands, asked of a host that is not the home; a host leaves, is forgotten and comes back.
member_commands() {
  migrants_start 2 3 || return 1
  uuid=$(moving_uuid)
  local bad=0 elsewhere=("$xenspan" --socket "$bed_dir/c/control")
  "${elsewhere[@]}" add-host moving c >said || { cat said; bad=1; }
  grep -q 'host c is active in moving' said || { cat said; bad=1; }
  cli drain moving b >said && grep -q 'host b is left in moving' said || { cat said; bad=1; }
  cli add-host moving b >said && grep -q 'host b is active' said || { cat said; bad=1; }
  "${elsewhere[@]}" remove-host moving c >said && grep -q 'host c is removed' said || { cat said; bad=1; }
  cli list --json | jq -e '.[] | select(.name == "moving") | [.members[].host] | sort == ["a", "b"]' >/dev/null ||
    { echo "the list of members is wrong"; cli list --json | jq -c '.[].members'; bad=1; }
  forgotten() { ! store_of a xenstore-exists "$(member_node c state)" && ! store_of b xenstore-exists "$(member_node c state)"; }
  wait_until 20 forgotten || { echo "c is in xenstore"; bad=1; }
  member_end && [ $bad = 0 ]
}

member_refusals() {
  migrants_start 2 2 "$guest_probe" sleep 100 2 || return 1
  uuid=$(moving_uuid)
  local bad=0
  member_refuses b add 'host b is a member of domain moving already' || bad=1
  member_refuses nobody add 'no such host: nobody' || bad=1
  member_refuses c drain 'host c is not a member' || bad=1
  member_refuses c remove 'host c is not a member' || bad=1
  member_refuses a drain "host a is the home .*what the program has open there is bound to that host (0 named pipe .*member.refusals/input" ||
    bad=1
  member_refuses a remove 'host a is the home' || bad=1
  member_refuses b join 'add, drain or remove' || bad=1
  # Not the home's xenstore.
  store_of b xenstore-write "$(member_node b request)" drain
  mirrored() { store_of b xenstore-read "$(member_node b error)" | grep -q 'host a is the home'; }
  wait_until 30 mirrored || { echo "host b's xenstore takes requests"; bad=1; }
  # What the home tells of b afterwards leaves that there; what it tells of a comes later still.
  member_refuses b add 'host b is a member of domain moving already' || bad=1
  member_refuses a add 'host a is a member of domain moving already' || bad=1
  told_of_a() { store_of b xenstore-read "$(member_node a error)" | grep -q 'host a is a member'; }
  wait_until 30 told_of_a || { echo "host b's xenstore does not tell why the home refused"; bad=1; }
  mirrored || { echo "the home's story wrote over what host b answered: $(store_of b xenstore-read "$(member_node b error)")"; bad=1; }
  refused 1 'host a is the home' drain moving a || bad=1
  refused 1 'no such host: nobody' add-host moving nobody || bad=1
  refused 1 'no such domain' add-host nothing-here c || bad=1
  refused 1 'no host.s name' add-host moving 'no/host' || bad=1
  refused 2 'HOST' add-host moving || bad=1
  if as_nobody cli drain moving b 2>refusal; then echo "nobody drained root's domain"; bad=1; fi
  grep -q 'belongs to root' refusal || { cat refusal; bad=1; }
  member_is a active && member_is b active || { echo "a refused request changed something"; bad=1; }
  cli destroy moving
  exec {migrants_input}>&-
  wait "$migrants_pid"
  refused 1 'domain moving is not running' drain moving b || bad=1
  return $bad
}

# Repeated, concurrent and withdrawn requests end where xenspan-xenstore(5) says.
member_repeated() {
  migrants_start 2 3 || return 1
  uuid=$(moving_uuid)
  local bad=0 word
  for word in add add add; do member_ask c "$word"; done
  # It waits for its turn, or has it already.
  member_ask b drain
  store_of a xenstore-rm "$(member_node b request)" 2>/dev/null
  member_becomes c active || bad=1
  settled() { member_is b active || member_is b left; }
  wait_until 60 settled || { echo "b is $(member_tells b state)"; bad=1; }
  member_ask c drain
  member_ask c drain
  member_ask c remove
  gone_from_list() { ! store_of a xenstore-exists "$(member_node c state)"; }
  wait_until 60 gone_from_list || { echo "c is $(member_tells c state): $(member_tells c error)"; bad=1; }
  member_end && [ $bad = 0 ]
}

# A host that goes silent while it joins: it has failed, the domain goes on, and it can try again.
member_fails() {
  migrants_start 2 3 || return 1
  uuid=$(moving_uuid)
  local bad=0 daemon
  daemon=$(bed_daemon_pid c)
  kill -STOP "$daemon"
  member_ask c add
  told() { [ "$(member_tells c state)" = failed ] && member_tells c error | grep -q 'lost host c\|did not get ready'; }
  wait_until 60 told || { echo "c is $(member_tells c state): $(member_tells c error)"; bad=1; }
  kill -CONT "$daemon"
  wait_until 30 bed_hosts_up || { echo "c does not come back"; bad=1; }
  wait_until 20 no_slice_on c || { echo "c has a slice"; bad=1; }
  [ $bad = 1 ] || { member_ask c add && member_becomes c active || bad=1; }
  member_end && [ $bad = 0 ]
}

# The daemon of the host that joins, or leaves, is restarted in the middle. Where it was in time for the change to be undone
# or to end by itself the domain goes on, and the host can be added again; else the domain ends and names it.
member_restart() { # WORD HOST
  local word=$1 host=$2 status
  rm -f input out err
  migrants_start 2 3 || return 1
  uuid=$(moving_uuid)
  local bad=0 at
  member_ask "$host" "$word"
  under_way() { [[ $(member_tells "$host" state) == joining || $(member_tells "$host" state) == draining ]]; }
  for ((at = 0; at < 200; at++)); do under_way && break; done
  kill -KILL "$(bed_daemon_pid "$host")"
  bed_restart_daemon "$host" || bad=1
  told() { gone "$migrants_pid" || [[ $(member_tells "$host" state) == failed || $(member_tells "$host" state) == left ]]; }
  wait_until 60 told || { echo "$host is $(member_tells "$host" state): $(member_tells "$host" error)"; bad=1; }
  if gone "$migrants_pid"; then
    exec {migrants_input}>&-
    wait "$migrants_pid"
    status=$?
    echo "report: $word of $host: the domain has ended: $(head -c 200 err)"
    [ $status = 125 ] && grep -Eqw "lost host $host" err || { echo "status $status:"; cat err; bad=1; }
  else
    echo "report: $word of $host: it has $(member_tells "$host" state)"
    member_ask "$host" add && member_becomes "$host" active || bad=1
    member_end || bad=1
  fi
  wait_until 60 no_slices || { echo "slices are left"; bad=1; }
  [ $bad = 0 ]
}
member_restarts() { member_restart add c && member_restart drain b; }

cases+=("member.add-and-drain add_and_drain" "member.commands member_commands" "member.refusals member_refusals"
  "member.repeated member_repeated" "member.fails member_fails" "member.restart member_restarts")
