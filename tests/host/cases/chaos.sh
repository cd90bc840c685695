# Things happen by chance to running programs that know their answers: hosts are added and drained, vCPUs move, hosts
# stand still for a moment, are loaded or slow to reach, and in the end one is killed or cut off, in the middle of
# whatever else is under way. Never a wrong answer, a hang, or anything left behind: the program ends well, or the domain
# ends with 125 and names a host that something was done to. A host that has left may die: the program goes on; and it
# may go on after one that ran no vCPU, if that held no page alone.
# Several beds at a time, each with runs of its own: a busy machine is part of it. --seed N repeats; CHAOS_RUNS,
# CHAOS_SECONDS and CHAOS_BEDS in the environment say how many runs, how long, and how many beds.

chaos_events=(move move add drain drain add stop-daemon stop-slice load delay)
chaos_ends=(none none kill-daemon kill-slice cut kill-daemon)
chance() { RANDOM_PICK=$((RANDOM % $1)); }

chaos_state() { cli list --json | jq -r --arg host "$1" '.[] | select(.uuid == "'"$uuid"'") | [.members[] | select(.host == $host) | .state] | first // "none"'; }
chaos_settled() { gone "$2" || case $(chaos_state "$1") in left | none | failed) ;; *) false ;; esac; } # HOST PID
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

chaos_takes_for_up() { # HOST OTHER
  "$xenspan" --socket "$bed_dir/$1/control" hosts --json |
    jq -e --arg host "$2" 'any(.[]; .name == $host and .state == "up")' >/dev/null
}
chaos_parted() { # HOST
  local other
  for other in a b c; do
    [ "$other" = "$1" ] || { ! chaos_takes_for_up "$other" "$1" && ! chaos_takes_for_up "$1" "$other"; } || return 1
  done
}

chaos_over() { # what the end of the run has to be, by $deadly, $before, $after, $status and $hurt
  local names
  names=$(echo "$hurt" | tr ' ' '\n' | sort -u | paste -sd '|' | sed 's/^|//')
  case $status in
    0)
      [ "$(cat out)" = "ok migrants" ] || { echo "status 0, and it printed:"; cat out; return 1; }
      [ "$deadly" = none ] || [ "$after" != active ] || { echo "status 0 although $deadly hit an active host"; return 1; }
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
  local seed=$1 count pid status='' deadly last host event hurt='' before=none after=none stopped=no numbers=() first end
  RANDOM=$seed
  # Drawn first, so that a seed says what happens in which order however fast the machine is.
  chance 2; first=$((RANDOM_PICK + 2))
  chance 2; last=$(bed_host $((RANDOM_PICK + 2)))
  chance ${#chaos_ends[@]}; deadly=${chaos_ends[RANDOM_PICK]}
  for ((count = 0; count < $2 * 16; count++)); do numbers+=($RANDOM); done
  rm -f input out err
  migrants_start "$first" 3 || { exec {migrants_input}>&-; return 1; }
  pid=$migrants_pid
  uuid=$(moving_uuid)
  echo "seed $seed: $first hosts"
  end=$((SECONDS + $2))
  for ((count = 0; count < $2 * 4 && SECONDS < end; count++)); do
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
    # A host that was just asked to leave may have left in time: then the program goes on.
    case $before in
      left | none | failed) sleep 4 ;;  # longer than a loss takes to be noticed
      *) wait_until 60 chaos_settled "$last" "$pid" || { echo "still runs after $deadly $last"; kill -KILL "$pid"; status=hang; } ;;
    esac
    after=$(chaos_state "$last")
  fi
  exec {migrants_input}>&-
  wait_until 60 gone "$pid" || { echo "does not end"; kill -KILL "$pid"; status=hang; }
  wait "$pid"
  status=${status:-$?}
  if [ "$deadly" = cut ]; then
    # The domain may have gone on, or ended, before the daemons notice: whoever connects next is not to meet that.
    wait_until 60 chaos_parted "$last" || { echo "the hosts do not notice that $last is cut off"; return 1; }
    link "$last" up
  fi
  [ "$deadly" != kill-daemon ] || bed_restart_daemon "$last" || return 1
  wait_until 60 no_slices || { echo "slices are left"; return 1; }
  chaos_over || return 1
  echo "$status ($deadly)" >>../outcomes
}

# The runs of one bed: BED BEDS RUNS SECONDS. What a failed run printed goes to ../failed.
chaos_bed() {
  local bed=$1 run host uuid
  bed_use "xc${bed_prefix#xh}-$bed"
  mkdir "$bed" && cd "$bed" || return 1
  for ((run = bed; run < $3; run += $2)); do
    if { bed_ensure || bed_ensure || { echo "the test bed does not come up"; false; }; } >log 2>&1 &&
      chaos_run $((chaos_seed + run)) "$4" >>log 2>&1 && { bed_clean || { echo "left behind: $bed_leftover" >>log; false; }; }; then continue; fi
    {
      echo "--- seed $((chaos_seed + run)):"
      cat log
      for host in a b c; do echo "host $host:"; bed_log "$host" | tail -n 40; done
      echo "repeat: CHAOS_RUNS=1 CHAOS_SECONDS=$4 tests/host/run --only chaos.short --seed $((chaos_seed + run))"
    } >"../failed.$run" 2>&1
    bed_down
  done
  bed_down
}

chaos() { # RUNS SECONDS BEDS
  local bed runs=${CHAOS_RUNS:-$1} seconds=${CHAOS_SECONDS:-$2} beds=${CHAOS_BEDS:-$3} pids=()
  touch outcomes
  for ((bed = 0; bed < beds && bed < runs; bed++)); do
    ( chaos_bed "$bed" "$beds" "$runs" "$seconds" ) &
    pids+=($!)
  done
  wait "${pids[@]}"
  cat failed.* 2>/dev/null
  echo "report: $runs runs of $seconds s from seed $chaos_seed: $(sort outcomes | uniq -c | awk '{ printf "%s%d ended with %s %s", sep, $1, $2, $3; sep = ", " }')"
  [ "$(wc -l <outcomes)" = "$runs" ] && ! ls failed.* >/dev/null 2>&1
}
chaos_long() { # RUNS SECONDS BEDS
  [ "$long" = yes ] || { echo "only with --long"; return 77; }
  chaos "$@"
}

# Several beds at a time want a machine of their own with a core a bed: hosts that get no processor lose their leases.
chaos_beds=$(nproc)
[ "$chaos_beds" -le 4 ] || chaos_beds=4
cases+=("chaos.short chaos 4 3 1" "chaos.ten chaos 10 30 $chaos_beds" "chaos.long chaos_long 200 30 4")
