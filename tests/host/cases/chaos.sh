# Things happen by chance to running programs that know their answers: hosts are added and drained, vCPUs move, hosts
# stand still for a moment, are loaded or slow to reach, and in the end one is killed or cut off, in the middle of
# whatever else is under way. Never a wrong answer, a hang, or anything left behind: the program ends well, or the domain
# ends with 125 and names a host that something was done to. A host that has left may die: the program goes on.
# --seed N repeats; CHAOS_RUNS and CHAOS_SECONDS in the environment say how many runs and how long.

chaos_events=(move move add drain drain add stop-daemon stop-slice load delay)
chaos_ends=(none none kill-daemon kill-slice cut kill-daemon)
chance() { RANDOM_PICK=$((RANDOM % $1)); }

chaos_state() { cli list --json | jq -r --arg host "$1" '.[] | select(.uuid == "'"$uuid"'") | [.members[] | select(.host == $host) | .state] | first // "none"'; }
chaos_ask() { store_of a xenstore-write "$(member_node "$1" request)" "$2" 2>/dev/null; } # HOST WORD

chaos_event() { # HOST EVENT NUMBER, which is all that chance has to say about it
  local host=$1 pid
  case $2 in
    move) timeout 20 "$xenspan" "${bed_options[@]}" migrate "$uuid" $(($3 % 3)) "$host" >/dev/null 2>&1 ;;
    add | drain) chaos_ask "$host" "$2" ;;
    stop-daemon | stop-slice)
      [ "$2" = stop-daemon ] && pid=$(bed_daemon_pid "$host") || pid=$(slice_pid "$host")
      [ -n "$pid" ] || return 0
      hurt+=" $host"
      kill -STOP "$pid" 2>/dev/null
      sleep 0.$(($3 % 5 + 1))
      kill -CONT "$pid" 2>/dev/null
      ;;
    load) timeout 1 ip netns exec "$(bed_netns "$host")" sh -c 'while :; do :; done' & ;;
    delay)
      ip netns exec "$(bed_netns "$host")" tc qdisc add dev "$(bed_interface "$host")" root netem delay $(($3 % 30))ms 2>/dev/null
      sleep 0.4
      ip netns exec "$(bed_netns "$host")" tc qdisc del dev "$(bed_interface "$host")" root 2>/dev/null
      ;;
    kill-daemon) hurt+=" $host"; kill -KILL "$(bed_daemon_pid "$host")" ;;
    kill-slice) hurt+=" $host"; pid=$(slice_pid "$host"); [ -z "$pid" ] || kill -KILL "$pid" ;;
    cut) hurt+=" $host"; link "$host" down ;;
  esac
  true
}

chaos_over() { # what the end of the run has to be, by $deadly, $before, $status and $hurt
  local names
  names=$(echo "$hurt" | tr ' ' '\n' | sort -u | paste -sd '|' | sed 's/^|//')
  case $status in
    0)
      [ "$(cat out)" = "ok migrants" ] || { echo "status 0, and it printed:"; cat out; return 1; }
      [ "$deadly" = none ] || [ "$before" != active ] || { echo "status 0 although $deadly hit an active host"; return 1; }
      ;;
    125)
      [ -n "$names" ] && grep -Eqw "hosts? ($names)" err || { echo "hurt were $names, but:"; cat err; return 1; }
      [ "$deadly" = none ] || ! echo "$before" | grep -Eq 'left|none|failed' || [ "$stopped" = yes ] ||
        { echo "ended by $deadly of a host that was no member ($before)"; cat err; return 1; }
      ;;
    *) echo "status $status"; cat out err; return 1 ;;
  esac
}

# One run: SEED SECONDS
chaos_run() {
  local seed=$1 count pid status='' deadly last host event hurt='' before=none stopped=no numbers=() first
  RANDOM=$seed
  # Drawn first, so that a seed says what happens however fast the machine is.
  chance 2; first=$((RANDOM_PICK + 2))
  chance 2; last=$(bed_host $((RANDOM_PICK + 2)))
  chance ${#chaos_ends[@]}; deadly=${chaos_ends[RANDOM_PICK]}
  for ((count = 0; count < $2 * 8; count++)); do numbers+=($RANDOM); done
  rm -f input out err
  mkfifo input
  "$xenspan" "${bed_options[@]}" run --name chaos --vcpus 3 --hosts "$(bed_hosts $first)" -- "$build/tests/host/guests/migrants" <input >out 2>err &
  pid=$!
  exec {input}>input
  wait_until 60 grep -q ready out err || { echo "the guest does not start"; cat err; kill -TERM "$pid"; exec {input}>&-; return 1; }
  uuid=$(cli list --json | jq -r '.[] | select(.name == "chaos" and .state == "running") | .uuid')
  echo "seed $seed: $first hosts"
  for ((count = 0; count < $2 * 2; count++)); do
    host=$(bed_host $((numbers[count * 4] % 3 + 1)))
    event=${chaos_events[numbers[count * 4 + 1] % ${#chaos_events[@]}]}
    echo "seed $seed: $event $host"
    [ "${event%-*}" != stop ] || stopped=yes
    chaos_event "$host" "$event" "${numbers[count * 4 + 2]}"
    sleep 0.$((numbers[count * 4 + 3] % 5))
  done
  before=$(chaos_state "$last")
  echo "seed $seed: $deadly $last ($before)"
  if [ "$deadly" != none ]; then
    chaos_event "$last" "$deadly" 0
    if [ "$before" = active ]; then
      wait_until 60 gone "$pid" || { echo "still runs after $deadly $last"; kill -KILL "$pid"; status=hang; }
    else
      sleep 4  # longer than a loss takes to be noticed
    fi
  fi
  exec {input}>&-
  wait_until 60 gone "$pid" || { echo "does not end"; kill -KILL "$pid"; status=hang; }
  wait "$pid"
  status=${status:-$?}
  [ "$deadly" != cut ] || link "$last" up
  [ "$deadly" != kill-daemon ] || bed_restart_daemon "$last" || return 1
  wait_until 60 no_slices || { echo "slices are left"; return 1; }
  chaos_over || return 1
  chaos_outcomes+=("$status ($deadly)")
}

chaos() { # RUNS SECONDS
  local run runs=${CHAOS_RUNS:-$1} seconds=${CHAOS_SECONDS:-$2} uuid chaos_outcomes=()
  for ((run = 0; run < runs; run++)); do
    bed_ensure || { echo "the test bed does not come back"; return 1; }
    chaos_run $((chaos_seed + run)) "$seconds" || {
      for host in a b c; do bed_log "$host" | tail -n 25; done
      echo "repeat: CHAOS_RUNS=1 CHAOS_SECONDS=$seconds tests/host/run --only chaos.short --seed $((chaos_seed + run))"
      return 1
    }
  done
  echo "report: $runs runs of $seconds s from seed $chaos_seed: $(printf '%s\n' "${chaos_outcomes[@]}" | sort | uniq -c | awk '{ printf "%s%d ended with %s %s", sep, $1, $2, $3; sep = ", " }')"
}
chaos_long() {
  [ "$long" = yes ] || { echo "only with --long"; return 77; }
  chaos 200 30
}

cases+=("chaos.short chaos 4 3" "chaos.long chaos_long")
