# By what wire pages travel, as far as it shows on a machine without an RDMA device: TCP where nothing was said or `auto`,
# refusals in one line with a remedy, and where it can be seen. With a device: make check-rdma.

one_line_with() { # FILE WORD...
  local file=$1 word
  shift
  [ "$(wc -l <"$file")" -eq 1 ] || { echo "not one line:"; cat "$file"; return 1; }
  for word; do grep -q -- "$word" "$file" || { echo "no \"$word\" in: $(cat "$file")"; return 1; }; done
}

auto_takes_tcp() {
  local option
  for option in "" --transport=auto --transport=tcp; do
    spanning_command 2 ${option:+"$option"} --stats=stats.json /bin/true || { echo "status $? with '$option'"; return 1; }
    [ "$(jq -r '[.transport, .hosts.b.transport] | join(" ")' stats.json)" = "tcp tcp" ] || { echo "with '$option':"; jq .transport stats.json; return 1; }
  done
}

verbs_is_refused() {
  spanning_command 2 --transport=verbs /bin/true 2>err && { echo "it ran"; return 1; }
  local status=$?
  [ $status -eq 125 ] || { echo "status $status, not 125"; return 1; }
  one_line_with err "host [ab] cannot use RDMA" "--transport tcp"
}

unknown_word() {
  spanning_command 2 --transport=pigeon /bin/true 2>err && { echo "it ran"; return 1; }
  one_line_with err --transport tcp verbs auto
}

# What the daemon's configuration says is what counts when the command says nothing.
configured() {
  local bed_prefix=${bed_prefix}v bed_size=2 status=1
  local bed_dir=/run/xenspan/testbed-$bed_prefix
  local bed_options=(--socket "$bed_dir/a/control")
  "$xenspan" testbed up 2 --prefix "$bed_prefix" >/dev/null || return 1
  kill "$(bed_daemon_pid a)"
  wait_until 10 test ! -e "$bed_dir/a/control"
  echo "transport = verbs" >>"$bed_dir/a.conf"
  bed_restart_daemon a && if spanning 2 /bin/true 2>err; then
    echo "it ran over something"
  else
    one_line_with err "cannot use RDMA" "--transport tcp" && spanning_command 2 --transport=auto /bin/true && status=0
  fi
  "$xenspan" testbed down --prefix "$bed_prefix" >/dev/null
  return $status
}

# A domain on one host has no wire, whatever was asked for.
no_wire_on_one_host() {
  spanning_command 1 --transport=verbs --stats=stats.json /bin/true || { echo "status $?"; return 1; }
  [ "$(jq -r .transport stats.json)" = none ] || { jq .transport stats.json; return 1; }
}

can_be_seen() {
  spanning_command 2 --name wired "$guest_probe" sleep 60 >out 2>err &
  local pid=$! uuid status=1
  wait_until 20 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  uuid=$(cli list --json | jq -r '.[] | select(.name == "wired") | .uuid')
  if ! cli list -v | grep -q TRANSPORT; then
    echo "no TRANSPORT in list -v"
  elif [ "$(cli list --json | jq -r '.[] | select(.name == "wired") | .transport')" != tcp ]; then
    echo "list --json:"; cli list --json
  elif [ "$(XENSTORED_PATH=$bed_dir/b/xenstored/socket xenstore-read "/tool/xenspan/domain/$uuid/transport")" != tcp ]; then
    echo "no transport in the xenstore of host b"
  elif [ "$(cli hosts --json | jq -r '[.[] | .rdma] | unique | join(" ")')" != "" ]; then
    echo "an RDMA device on this machine:"; cli hosts
  elif [ "$(cli hosts --json | jq '[.[] | select(.rdma_problem == "")] | length')" != 0 ]; then
    echo "a host without a reason:"; cli hosts --json
  else
    status=0
  fi
  cli destroy wired
  wait "$pid"
  return $status
}

cases+=("transport.auto_takes_tcp auto_takes_tcp" "transport.verbs_is_refused verbs_is_refused"
  "transport.unknown_word unknown_word" "transport.configured configured"
  "transport.no_wire_on_one_host no_wire_on_one_host" "transport.can_be_seen can_be_seen")
