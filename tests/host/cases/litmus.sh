# The x86 litmus shapes over several hosts (tests/litmus): what x86 forbids is never seen. The whole count with --long.

litmus=$build/tests/litmus/litmus

# litmus_spanning FILE HOSTS VCPUS ARGUMENTS...: status 0 when no forbidden outcome was seen. Lines that begin with
# "report: " are shown with the case's result.
litmus_spanning() {
  local file=$1 hosts=$2 vcpus=$3
  shift 3
  "$xenspan" "${bed_options[@]}" run --vcpus "$vcpus" --hosts "$(bed_hosts "$hosts")" -- "$litmus" "$@" >"$file" 2>&1
  local status=$?
  cat "$file"
  [ $status -eq 0 ] || { echo "the litmus program ended with status $status"; grep SEEN "$file"; return 1; }
}
litmus_report() { # TITLE FILE
  sed -n "/^total\|^litmus:\|^store buffers\|^Between\|^with a TLB/s/^/report: $1: /p" "$2"
}

# litmus_hosts HOSTS ITERATIONS: every shape and variant, on one page and on two, one vCPU a host.
litmus_hosts() {
  local hosts=$1 iterations=$2
  [ "$long" = yes ] && iterations=100000
  litmus_spanning spanning "$hosts" "$hosts" --iterations "$iterations" || return 1
  # Every run had threads on different vCPUs, which are on different hosts.
  local runs
  runs=$(grep -c ' threads on vCPUs ' spanning)
  [ "$runs" -gt 0 ] && [ "$(grep -c ' threads on vCPUs 0,1' spanning)" -eq "$runs" ] ||
    { echo "not every run was over several vCPUs"; return 1; }
  litmus_report "$hosts hosts" spanning
  litmus_keep "$hosts-hosts" spanning
}
# Natively, for comparison.
litmus_native() {
  "$litmus" >native || { cat native; return 1; }
  litmus_report natively native | grep -v ': total '
  litmus_keep native native
}
litmus_keep() { # NAME FILE
  cp "$2" "$build/litmus-$1.log" && echo "report: each outcome's count: $build/litmus-$1.log"
}

# The outcome of hardware store buffers, which no two hosts show, is there on one host with two cores: so the program
# would see it.
litmus_one_host() {
  [ "$(nproc)" -ge 2 ] || { echo "this machine has one processor"; return 77; }
  cp "$bed_dir/a.conf" a.conf
  # Those of hosts a and b: they differ where this shell may use two.
  local cores
  cores=$(cli hosts --json | jq -r '[.[] | select(.name == "a" or .name == "b") | .cores[0]] | join(",")')
  sed -i "s/^cpus = .*/cpus = $cores/" "$bed_dir/a.conf"
  litmus_restart && litmus_see_store_buffers
  local status=$?
  cp a.conf "$bed_dir/a.conf"
  litmus_restart || return 1
  return $status
}
litmus_restart() {
  local pid
  pid=$(bed_daemon_pid a)
  kill "$pid"
  wait_until 10 gone "$pid" || { echo "the daemon of host a does not end"; return 1; }
  bed_restart_daemon a
}
litmus_see_store_buffers() {
  local try
  for try in 1 2 3 4 5; do
    litmus_spanning one-host 1 2 --iterations 400000 --variant plain --shape SB --shape R || return 1
    grep -q '(store buffer)' one-host && break
  done
  litmus_report "one host" one-host
  grep -q '(store buffer)' one-host || { echo "the store buffers' outcome was not seen on one host"; return 1; }
}

cases+=("litmus.native litmus_native")
cases+=("litmus.2 litmus_hosts 2 100000")
cases+=("litmus.3 litmus_hosts 3 20000")
cases+=("litmus.one_host litmus_one_host")
