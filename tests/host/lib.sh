# What the host tests and demo.sh share: a test bed and commands in it. To be sourced by bash, with $build set to a build
# tree; $bed_prefix may be set to have a bed of one's own.

xenspan=$build/dom0-daemon/xenspan
guest_probe=$build/tests/host/guest_probe
: "${bed_prefix:=xshost}"
bed_use() { # PREFIX: another bed from now on
  bed_prefix=$1
  bed_dir=/run/xenspan/testbed-$bed_prefix
  bed_options=(--socket "$bed_dir/a/control")
}
bed_use "$bed_prefix"
bed_size=3

# As which user `cli` and `spanning_command` run, see as_nobody.
bed_user=
as_bed_user() {
  if [ -z "$bed_user" ]; then "$@"; else
    setpriv --reuid "$bed_user" --regid "$(id -g "$bed_user")" --clear-groups "$@"
  fi
}
cli() { as_bed_user "$xenspan" "${bed_options[@]}" "$@"; }

# --- the bed ---

bed_up() { "$xenspan" testbed up "${1:-$bed_size}" --prefix "$bed_prefix"; }
bed_down() { [ -e "$bed_dir" ] && "$xenspan" testbed down --prefix "$bed_prefix" >/dev/null; true; }
bed_hosts_up() { [ "$(cli hosts --json 2>/dev/null | jq '[.[] | select(.state == "up")] | length')" = "$bed_size" ]; }
# Every host is up and sees the others; makes the bed new when that cannot be had.
bed_ensure() {
  [ -e "$bed_dir" ] && wait_until 10 bed_hosts_up && return 0
  bed_down
  bed_up >/dev/null && bed_hosts_up
}
bed_host() { echo "$1" | tr 1-9 a-i; }
bed_hosts() { # COUNT: a,b,c
  local list=
  local i
  for ((i = 1; i <= $1; i++)); do list+=${list:+,}$(bed_host "$i"); done
  echo "$list"
}
bed_netns() { echo "$bed_prefix-$1"; }
bed_interface() { echo eth0; }
bed_address() { cli hosts --json | jq -r --arg name "$1" '.[] | select(.name == $name) | .address'; }
bed_port() { cli hosts --json | jq -r --arg name "$1" '.[] | select(.name == $name) | .port'; }
bed_daemon_pid() { read -r pid _ <"$bed_dir/$1.pid" && echo "$pid"; }
bed_log() { cat "$bed_dir/$1.log"; }
from_host() { # NUMBER COMMAND...
  local number=$1
  shift
  ip netns exec "$(bed_netns "$(bed_host "$number")")" "$@"
}
# Starts a host's daemon again, as an admin or systemd would.
bed_restart_daemon() {
  local host=$1 pid fd
  # Without what the case has open: a guest waits for the end of its input as long as anybody could write to it.
  (
    for fd in "/proc/$BASHPID/fd"/*; do [ "${fd##*/}" -le 2 ] || eval "exec ${fd##*/}>&-"; done 2>/dev/null
    exec setsid ip netns exec "$(bed_netns "$host")" "$build/dom0-daemon/xenspand" --config "$bed_dir/$host.conf" \
      >>"$bed_dir/$host.log" 2>&1 </dev/null
  ) &
  pid=$!
  # `ip netns exec` becomes the program, so the process keeps its number.
  echo "$pid $(awk '{ print $22 }' "/proc/$pid/stat")" >"$bed_dir/$host.pid"
  wait_until 60 bed_hosts_up || { tail -n 5 "$bed_dir/$host.log"; return 1; }
}
# A daemon that knows where the bed's hosts are but has a key of its own. DIR is where its files go.
bed_start_stranger() {
  local dir=$1
  mkdir -p "$dir/run"
  "$xenspan" cluster-key "$dir/stranger.key" || return 1
  ip netns exec "$(bed_netns c)" "$build/dom0-daemon/xenspand" --config /dev/null --name stranger --address "$(bed_address c)" --port 8999 \
    --rundir "$dir/run" --key "$dir/stranger.key" --peer "a=$(bed_address a):$(bed_port a)" >"$dir/stranger.log" 2>&1 </dev/null &
  stranger_pid=$!
  wait_until 10 test -e "$dir/run/stranger/control" || { cat "$dir/stranger.log"; return 1; }
}
bed_stop_stranger() {
  kill "$stranger_pid" 2>/dev/null
  wait "$stranger_pid" 2>/dev/null
}

# Nothing of a domain is left: no slice, no network connection of one, no file.
bed_slices() { # [HOST]: processes xenspan-slice of this bed
  local pid parent host
  for pid in $(pgrep -x xenspan-slice); do
    for host in ${1:-a b c}; do
      [ "$(slice_netns "$pid")" = "$(stat -L -c %i "/run/netns/$(bed_netns "$host")")" ] && echo "$pid"
    done
  done 2>/dev/null
}
slice_netns() { stat -L -c %i "/proc/$1/ns/net"; }
no_slices() { [ -z "$(bed_slices)" ]; }
no_slice_on() { [ -z "$(bed_slices "$1")" ]; } # HOST
slice_pid() { bed_slices "$1" | head -n 1; }
slice_ports() { # HOST: TCP ports where its slice listens
  ip netns exec "$(bed_netns "$1")" ss -Hltnp |
    awk '/"xenspan-slice"/ { n = split($4, part, ":"); print part[n] }' | sort -u
}
bed_leftover=
bed_clean() {
  if ! wait_until 5 no_slices; then
    bed_leftover="processes $(bed_slices | tr '\n' ' ')"
    local pid
    for pid in $(bed_slices); do kill -KILL "$pid"; done
    return 1
  fi
  local rest
  rest=$(find "$bed_dir"/?/domain -mindepth 1 -maxdepth 1 2>/dev/null)
  if [ -n "$rest" ]; then
    bed_leftover="files $rest"
    return 1
  fi
}

# --- domains ---

only_standard_files() { # COMMAND...: what else this shell has open stays here
  local fd
  for fd in /proc/"$BASHPID"/fd/*; do
    [ "${fd##*/}" -le 2 ] || eval "exec ${fd##*/}>&-"
  done
  exec "$@"
}

# spanning HOSTS COMMAND...: runs it with one vCPU on each host.
spanning() {
  local hosts=$1
  shift
  "$xenspan" "${bed_options[@]}" run --vcpus "$hosts" --hosts "$(bed_hosts "$hosts")" -- "$@"
}
# The same, but options of `xenspan run` may come before the command, and the shell becomes the command, so that a
# background job's number is the command's.
spanning_command() {
  local hosts=$1 options=()
  shift
  while [[ $1 == --* ]]; do
    options+=("$1")
    [ "$1" = --name ] && { options+=("$2"); shift; }
    shift
  done
  local line=("$xenspan" "${bed_options[@]}" run --vcpus "$hosts" --hosts "$(bed_hosts "$hosts")" "${options[@]}" -- "$@")
  [ -z "$bed_user" ] || line=(setpriv --reuid "$bed_user" --regid "$(id -g "$bed_user")" --clear-groups "${line[@]}")
  # The shell that runs the case must not be replaced, only one in the background.
  [ "$BASHPID" = "${case_shell:-$$}" ] || exec "${line[@]}"
  "${line[@]}"
}
# Runs `cli` or `spanning_command` as an unprivileged user. The build may lie where that user cannot look: the command is
# copied.
as_nobody() {
  local bed_user=nobody xenspan=$work/bin/xenspan
  "$@"
}
command_pid() { echo "$1"; }

# On Debian a shell script that becomes the program.
seven_zip=7zr

# --- time and processes ---

gone() { ! kill -0 "$1" 2>/dev/null || [ "$(awk '/^State:/ { print $2 }' "/proc/$1/status" 2>/dev/null)" = Z ]; }
wait_until() { # SECONDS COMMAND...
  local end=$((SECONDS + $1 + 1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}
