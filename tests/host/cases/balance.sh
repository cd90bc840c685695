# vCPUs that move by themselves: away from a host whose core has other work, with exact answers; and where policies place them.

balanced_host() { # VCPU
  cli list --json | jq -r --argjson vcpu "$1" '.[] | select(.name == "balanced") | .vcpus[$vcpu].host'
}
is_balanced_on() { [ "$(balanced_host "$1")" = "$2" ]; }

# 16 programs that are not ours keep host b's core busy: the one thread there gets a seventeenth of it, and would get half of a's. Each
# is a session of its own: where the kernel gives sessions equal shares (sched_autogroup), one would take no more than half.
leaves_a_busy_host() {
  local core other pid loops=() bad=0
  core=$(cli hosts --json | jq -r '.[] | select(.name == "b") | .cores[0]')
  other=$(cli hosts --json | jq -r '.[] | select(.name == "a") | .cores[0]')
  [ "$core" != "$other" ] || { echo "one core only: both hosts are as busy"; return 77; }
  mkfifo input
  "$xenspan" "${bed_options[@]}" run --policy load --name balanced --vcpus 2 --hosts a,b -- \
    "$build/tests/bench/guests/pieces" 2 100000 <input >out 2>err &
  pid=$!
  exec {balanced_input}>input
  wait_until 60 test -s out || { echo "the guest does not start"; cat err; kill -TERM "$pid"; return 1; }
  is_balanced_on 1 b || { echo "vCPU 1 does not begin on host b"; bad=1; }
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
    setsid taskset -c "$core" sh -c 'while :; do :; done' &
    loops+=($!)
  done
  wait_until 120 is_balanced_on 1 a || { echo "vCPU 1 stays on the busy host"; cli hosts; bad=1; }
  kill "${loops[@]}"
  wait "${loops[@]}"
  is_balanced_on 0 a || { echo "vCPU 0 has left its home"; bad=1; }
  # Told to everybody, with the reason.
  told_move() {
    cli list --json | jq -e '.[] | select(.name == "balanced") | .policy == "load" and
      (.last_move | test("^vCPU 1 from host b to host a: other work takes [0-9]+% of its core"))' >/dev/null
  }
  wait_until 10 told_move || { echo "the move is not told:"; cli list --json | jq -c '.[] | [.policy, .last_move]'; bad=1; }
  cli list -v | grep -q 'load .*vCPU 1 from host b to host a' || { echo "not in xenspan list -v:"; cli list -v; bad=1; }
  echo "report: $(cli list --json | jq -r '.[] | select(.name == "balanced") | .last_move')"
  exec {balanced_input}>&-
  wait_until 60 gone "$pid" || { echo "the guest does not end"; cli destroy balanced; bad=1; }
  wait "$pid" || { echo "status $?"; cat err; bad=1; }
  tail -n 1 out | grep -q '^pieces=[1-9]' || { echo "a piece is wrong or was lost:"; tail -n 1 out; bad=1; }
  return $bad
}

# vCPUs 0 and 2, and 1 and 3, fight in pairs: 0 stays with its home, so 2 comes there and 1 makes room.
brings_together() {
  local pid bad=0
  mkfifo input
  "$xenspan" "${bed_options[@]}" run --policy affinity --name balanced --vcpus 4 --hosts a,b -- \
    "$build/tests/host/guests/fights" pairs long <input >out 2>err &
  pid=$!
  exec {balanced_input}>input
  placement() { cli list --json | jq -r '.[] | select(.name == "balanced") | [.vcpus[].host] | join(",")'; }
  is_placed() { [ "$(placement)" = "$1" ]; }
  wait_until 60 is_placed a,a,b,b || { echo "it begins elsewhere: $(placement)"; bad=1; }
  wait_until 90 is_placed a,b,a,b || { echo "the pairs are not together: $(placement)"; bad=1; }
  told_move() {
    cli list --json | jq -e '.[] | select(.name == "balanced") | .policy == "affinity" and
      (.last_move | test("^vCPU [12] from host [ab] to host [ab]: vCPUs that fight over pages come together"))' >/dev/null
  }
  wait_until 10 told_move || { echo "the moves are not told:"; cli list --json | jq -c '.[] | [.policy, .last_move]'; bad=1; }
  echo "report: $(cli list --json | jq -r '.[] | select(.name == "balanced") | .last_move')"
  exec {balanced_input}>&-
  wait_until 60 gone "$pid" || { echo "the guest does not end"; cli destroy balanced; bad=1; }
  wait "$pid" || { echo "status $?"; bad=1; }
  grep -q '^ok fights' out || { cat out err; bad=1; }
  return $bad
}

# A domain that is packed has the hosts it needs.
packs() {
  local bad=0 placed
  for policy in pack spread; do
    rm -f out  # else "ready" may be the last program's
    "$xenspan" "${bed_options[@]}" run --policy "$policy" --name packed --vcpus "$([ $policy = pack ] && echo 2 || echo 3)" \
      --hosts a,b,c -- "$guest_probe" sleep 100 >out 2>err &
    local pid=$!
    wait_until 30 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
    placed=$(cli list --json | jq -r '.[] | select(.name == "packed") | .policy + " " + ([.members[].host] | join(","))')
    echo "$placed" >>placed
    cli destroy packed
    wait "$pid"
  done
  printf 'pack a,b\nspread a,b,c\n' | cmp -s - placed || { cat placed; bad=1; }
  printf 'name = "x"\ntype = "usermode"\ncommand = ["/bin/true"]\npolicy = "best"\n' >bad.cfg
  refused 1 'bad.cfg:4: policy "best": use spread, pack, load or affinity' create bad.cfg || bad=1
  return $bad
}

cases+=("balance.load leaves_a_busy_host" "balance.affinity brings_together" "balance.placement packs")
