# What directory and engine cost: 24 bytes a page and host, as the engine counts it and as the kernel does.

# Of a slice's page table (the one mapping without swap reservation and huge pages): resident bytes.
table_resident() { # PID
  awk '/^Rss:/ { rss = $2 } /^VmFlags:/ && / nr / && / nh / { sum += rss } END { print sum * 1024 }' "/proc/$1/smaps"
}

# HOSTS MIB: a line a host: its name, pages touched, bytes of table by the engine and by the kernel.
held_memory() {
  local hosts=$1 mebibytes=$2 host pages bytes
  rm -f out
  spanning_command "$hosts" --name held "$guest_probe" hold "$mebibytes" >out 2>err &
  local pid=$!
  wait_until 60 grep -qs ready out || { echo "the guest does not start"; cat err; return 1; }
  cli stats held >stats.json || { echo "xenspan stats fails"; return 1; }
  for host in $(bed_hosts "$hosts" | tr , ' '); do
    jq -r --arg host "$host" '.hosts[$host] | "\($host) \(.pages_touched) \(.table_bytes)"' stats.json | tr '\n' ' '
    table_resident "$(slice_pid "$host")"
  done
  cli destroy held >/dev/null
  wait "$pid"
  wait_until 10 no_slices
}

# Entries come into use 512 at a time (2 MiB of guest memory, 12 KiB of table), so the few pieces that a program does not
# fill, of stacks and libraries, have more than it touches. What 256 MiB more cost is free of them, but for where the kernel
# happens to put things: a few pieces more or less.
directory_memory() {
  local hosts=$1 less=64 more=320
  held_memory "$hosts" $less >small && held_memory "$hosts" $more >large || { cat small large; return 1; }
  [ "$(wc -l <small)" = "$hosts" ] && [ "$(wc -l <large)" = "$hosts" ] || { cat small large; return 1; }
  paste -d ' ' small large | awk -v held=$(((more - less) * 256)) '
    {
      pages = $6 - $2; bytes = $7 - $3; resident = $8 - $4
      if (pages < held - 512) { print $1, "has touched", $2, "and", $6, "pages, not", held, "more"; bad = 1; next }
      printf "report: %s: bytes a page: %.2f of %d touched (resident %.2f), %.2f of the last %d (resident %.2f)\n",
        $1, $7 / $6, $6, $8 / $6, bytes / pages, pages, resident / pages
      few = 8 * 512; allowed = 24 * (pages + few)
      if (bytes < 24 * (pages - few) || bytes > allowed || resident < 1 || resident > allowed) bad = 1
    }
    END { exit bad + 0 }' >table
  local status=$?
  cat table
  return $status
}

for hosts in 2 3; do
  cases+=("memory.directory.$hosts directory_memory $hosts")
done
