# The home of a running program moves to another host and its host leaves: files, locks, signals and timers of the program notice
# nothing, what is bound to the host is named in a refusal, and the old host can be switched off.

home_guest=$build/tests/host/guests/home_users
home_of() { cli_at "$1" list --json | jq -r '.[] | select(.name == "moving") | .home'; }
cli_at() { as_bed_user "$xenspan" --socket "$bed_dir/$1/control" "${@:2}"; } # HOST ARGUMENTS...
home_is() { [ "$(home_of a)$(home_of b)$(home_of c)" = "$1$1$1" ] &&
  [ "$(store_of c xenstore-read "/tool/xenspan/domain/$uuid/home")" = "$1" ]; }
said_of() { cli_at "$1" list -a --json | jq -r --arg uuid "$uuid" '.[] | select(.uuid == $uuid) | .state + " " + (.exit_status | tostring)'; }

# home_start HOSTS VCPUS GUEST [ARGUMENTS...]: with nothing open that is bound to a host; $home_pid is the command's.
home_start() {
  local hosts=$1 vcpus=$2
  shift 2
  rm -f home_users.* out err end
  only_standard_files "$xenspan" "${bed_options[@]}" run --name moving --vcpus "$vcpus" --hosts "$(bed_hosts "$hosts")" -- "$@" \
    </dev/null >out 2>err &
  home_pid=$!
  if ! wait_until 60 home_begun; then
    echo "the guest does not start"
    cat err
    kill -TERM "$home_pid"
    return 1
  fi
  uuid=$(moving_uuid)
}
home_begun() { [ -e home_users.ready ]; }
home_end() { # the program's own end
  touch end
  wait_until 60 gone "$home_pid" || { echo "the guest does not end"; cli destroy moving; cat err; return 1; }
  wait "$home_pid"
  local status=$?
  [ $status = 0 ] && [ "$(cat out)" = "ok home_users" ] && return 0
  echo "status $status, it printed:"
  cat out err
  return 1
}
home_story() {
  cli_at b list -a --json | jq -c --arg uuid "$uuid" '.[] | select(.uuid == $uuid) | [.uuid, .state, .home, .error, [.members[] | [.host, .state, .error]]]'
  for at in a b c; do bed_log "$at" | tail -n 25; done
  cat err
}

# Two hosts and three; the command waits on the old home, which leaves and whose slice ends, and tells the program's own end.
home_drains() {
  local hosts bad=0
  for hosts in 2 3; do
    home_start "$hosts" "$hosts" "$home_guest" until end || return 1
    cli drain moving a >said || { cat said; bad=1; }
    grep -q 'host a is left in moving' said || bad=1
    member_becomes a left || bad=1
    wait_until 20 home_is b || wait_until 1 home_is c || { echo "the home is $(home_of a), $(home_of b), $(home_of c)"; bad=1; }
    vcpus_on a 0 || { echo "a has vCPUs"; bad=1; }
    wait_until 10 no_slice_on a || { echo "a has a slice"; bad=1; }
    [ $bad = 0 ] || home_story
    home_end || bad=1
    [ $bad = 0 ] || return 1
  done
}

# The old home is switched off, and what the program does is still right: its new home is whole.
home_switched_off() {
  home_start 3 3 "$home_guest" until end || return 1
  local bad=0
  member_ask a drain
  member_becomes a left || bad=1
  [ $bad = 0 ] || home_story
  kill -TERM "$(bed_daemon_pid a)"
  wait_until 30 gone "$home_pid" || { echo "the command on a does not end"; bad=1; }
  wait "$home_pid"
  [ $? = 125 ] && grep -q "domain moving goes on, and host . is its home" err || { echo "the command on a says:"; cat err; bad=1; }
  touch end
  over() { [ "$(said_of b)" = "ended 0" ] && [ "$(said_of c)" = "ended 0" ]; }
  wait_until 60 over || { echo "the domain is $(said_of b)"; home_story; cli_at b destroy moving; bad=1; }
  [ "$(cat out)" = "ok home_users" ] || { echo "it printed:"; cat out; bad=1; }
  bed_restart_daemon a && wait_until 30 bed_hosts_up || bad=1
  return $bad
}

# To b, and back to a, and signals and commands find it there.
home_returns() {
  home_start 2 2 "$home_guest" until end || return 1
  local bad=0
  cli drain moving a && wait_until 20 home_is b || bad=1
  # Asked of a, which has left.
  [ $bad = 1 ] || { cli add-host moving a && cli drain moving b && wait_until 20 home_is a || bad=1; }
  [ $bad = 1 ] || { cli add-host moving b && cli migrate moving 0 b && cli migrate moving 0 a || bad=1; }
  [ $bad = 1 ] || { cli_at b stats moving >stats && jq -e '.hosts | length == 2' stats >/dev/null || { cat stats; bad=1; }; }
  [ $bad = 0 ] || home_story
  home_end && [ $bad = 0 ] || return 1
  # A signal to the command on the old home goes to the program.
  home_start 2 2 "$home_guest" until end || return 1
  cli drain moving a || { home_story; bad=1; }
  kill -TERM "$home_pid"
  wait_until 30 gone "$home_pid" || { echo "the program does not end by SIGTERM"; cli destroy moving; bad=1; }
  wait "$home_pid"
  [ $? = 143 ] || { echo "its status is another"; cat err; bad=1; }
  # So does its end.
  home_start 2 2 "$home_guest" until end || return 1
  cli drain moving a || { home_story; bad=1; }
  kill -KILL "$home_pid"
  wait "$home_pid"
  wait_until 30 no_slices || { echo "slices are left when the command has ended"; bad=1; }
  return $bad
}

# What nobody can open elsewhere keeps the home where it is, and the program runs on there.
home_stays() {
  home_start 2 2 "$home_guest" until end || return 1
  local bad=0
  # It is there, but not under the name by which the program opened it.
  ln home_users.log kept.log
  rm home_users.log
  refused 1 "its role as the home stays here: .*home_users.log" drain moving a || bad=1
  member_is a active && wait_until 60 vcpus_on a 1 || { echo "the home is not as it was"; cli list; bad=1; }
  home_is a || { echo "the home is $(home_of b)"; bad=1; }
  ln kept.log home_users.log
  [ $bad = 0 ] || home_story
  home_end && [ $bad = 0 ]
}

# A home that is killed in the middle of it: nothing is left, and the cause is told where somebody can.
home_killed() {
  local pause bad=0
  for pause in 0.05 0.3 0.6; do
    home_start 3 3 "$home_guest" until end || return 1
    member_ask a drain
    sleep "$pause"
    kill -KILL "$(bed_daemon_pid a)"
    wait "$home_pid"
    over_or_moved() { [[ "$(said_of b)" =~ ^failed ]] || [ "$(home_of b)" = b ] || [ "$(home_of b)" = c ]; }
    wait_until 60 over_or_moved || { echo "the domain is $(said_of b)"; home_story; bad=1; }
    echo "report: the home killed after $pause s: the domain is $(said_of b)"
    bed_restart_daemon a || bad=1
    wait_until 30 bed_hosts_up || bad=1
    cli_at b destroy moving 2>/dev/null
    wait_until 60 no_slices || { echo "slices are left"; bad=1; }
  done
  return $bad
}

cases+=("home.drains home_drains" "home.switched-off home_switched_off" "home.returns home_returns" "home.stays home_stays"
  "home.killed home_killed")
