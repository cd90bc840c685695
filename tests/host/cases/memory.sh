# What directory and engine cost: at most 24 bytes a page and host, as the engine counts it and as the kernel does.

# Of a slice's page table (the one mapping without swap reservation and huge pages): resident bytes.
table_resident() { # PID
  awk '/^Rss:/ { rss = $2 } /^VmFlags:/ && / nr / && / nh / { sum += rss } END { print sum * 1024 }' "/proc/$1/smaps"
}

# HOSTS MIB: a line a host: its name, pages touched, bytes of table by the engine and by the kernel, bytes of the engine beside it.
held_memory() {
  local hosts=$1 mebibytes=$2 host pages bytes
  rm -f out
  spanning_command "$hosts" --name held "$guest_probe" hold "$mebibytes" >out 2>err &
  local pid=$!
  wait_until 60 grep -qs ready out || { echo "the guest does not start"; cat err; return 1; }
  cli stats held >stats.json || { echo "xenspan stats fails"; return 1; }
  for host in $(bed_hosts "$hosts" | tr , ' '); do
    jq -r --arg host "$host" '.hosts[$host] | "\($host) \(.pages_touched) \(.table_bytes)"' stats.json | tr '\n' ' '
    table_resident "$(slice_pid "$host")" | tr '\n' ' '
    jq -r --arg host "$host" '.hosts[$host].engine_bytes' stats.json
  done
  cli destroy held >/dev/null
  wait "$pid"
  wait_until 10 no_slices
}

# Over all pages that a program of 512 MiB has touched, everything counted: entries of pages that were not touched but stand in
# the same 4 KiB of table, and what does not grow with the pages.
directory_memory() {
  local hosts=$1 mebibytes=512
  held_memory "$hosts" $mebibytes >held || { cat held; return 1; }
  [ "$(wc -l <held)" = "$hosts" ] || { cat held; return 1; }
  awk -v least=$((mebibytes * 256)) '
    {
      printf "report: %s: bytes a page: %.2f of %d touched: table %.2f (resident %.2f), engine %.2f\n",
        $1, ($3 + $5) / $2, $2, $3 / $2, $4 / $2, $5 / $2
      if ($2 < least || $3 < 20 * least || $3 + $5 > 24 * $2 || $4 < 20 * least || $4 + $5 > 24 * $2) bad = 1
    }
    END { exit bad + 0 }' held >table
  local status=$?
  cat table
  return $status
}

for hosts in 2 3; do
  cases+=("memory.directory.$hosts directory_memory $hosts")
done
