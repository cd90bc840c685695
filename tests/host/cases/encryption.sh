# Whole programs over hosts with `encrypt = true`: the same results, and nothing of the guest's memory to be read on the
# wire. Without it the same watcher sees it, which shows that it looks in the right place.

marker=the-quick-brown-marker

encrypted_bed_down() { [ ! -e "/run/xenspan/testbed-${bed_prefix}e" ] || "$xenspan" testbed down --prefix "${bed_prefix}e" >/dev/null; }

# in_encrypted_bed COMMAND...: with a bed of its own, of two hosts.
in_encrypted_bed() {
  local bed_prefix=${bed_prefix}e bed_size=2 status
  local bed_dir=/run/xenspan/testbed-$bed_prefix
  local bed_options=(--socket "$bed_dir/a/control")
  "$xenspan" testbed up 2 --encrypt --prefix "$bed_prefix" >/dev/null || return 1
  "$@"
  status=$?
  "$xenspan" testbed down --prefix "$bed_prefix" >/dev/null
  return $status
}

# The second half of the input is packed on host b, so its pages cross the wire.
marked_input() { yes "$marker $(seq -s ' ' 1 40)" | head -c 16777216 >input; }
packed_while_watched() {
  local watcher status
  marked_input
  # `ip netns exec` becomes the program, so that the number is the program's.
  ip netns exec "$(bed_netns a)" "$build/tests/host/wire_watch" "$(bed_interface a)" "$marker" watched &
  watcher=$!
  wait_until 10 test -s watched || { echo "the watcher does not start"; kill "$watcher"; return 1; }
  spanning 2 pigz -c -n -p 2 input >out.gz
  status=$?
  kill "$watcher"
  wait "$watcher"
  cat watched
  [ $status -eq 0 ] || { echo "exit status $status"; return 1; }
  unpigz <out.gz | cmp - input || { echo "does not unpack to the input"; return 1; }
  read -r _ all _ with_text <watched
  [ "$all" -gt 1000 ] || { echo "$all packets: too few for the program's pages"; return 1; }
}
nothing_to_read() { packed_while_watched && [ "$with_text" -eq 0 ] || { echo "memory is readable on the wire"; return 1; }; }
readable() { packed_while_watched && [ "$with_text" -gt 100 ] || { echo "the watcher does not see plain memory"; return 1; }; }

cases+=("encryption.off readable" "encryption.pigz in_encrypted_bed nothing_to_read")
for program in omp_pi atomic_counter signals file_io alloc_storm; do
  cases+=("encryption.$program in_encrypted_bed guest $build/tests/host/guests/$program 2 first second")
done
