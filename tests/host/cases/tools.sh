# Debian's own parallel compressors over 2 and 3 hosts. What they write must unpack to the input, and be the very bytes
# that the single machine writes where the program promises that for the same number of threads.

input_bytes=33554432

make_input() { "$build/tests/host/make_text" "$input_bytes" 7 >input; }

# tool HOSTS UNPACK ARGUMENTS...: a program that packs `input` to standard output.
tool() {
  local hosts=$1 unpack=$2
  shift 2
  command -v "$1" >/dev/null || { echo "$1 is not installed"; return 77; }
  make_input
  spanning "$hosts" "$@" >spanning.out || { echo "exit status $?"; return 1; }
  $unpack <spanning.out | cmp - input || { echo "does not unpack to the input"; return 1; }
  "$@" >native.out || return 1
  cmp spanning.out native.out || { echo "not the bytes that the single machine writes"; return 1; }
}

# 7zr needs files of its own, so it is compared by what it unpacks.
pack_7z() {
  local hosts=$1
  command -v 7zr >/dev/null || { echo "7zr is not installed"; return 77; }
  make_input
  spanning "$hosts" "$seven_zip" a -bd -mx=3 -mmt="$hosts" out.7z input >spanning.out || { echo "exit status $?"; cat spanning.out; return 1; }
  7zr x -so out.7z | cmp - input || { echo "does not unpack to the input"; return 1; }
}

benchmark_7z() {
  local hosts=$1
  spanning "$hosts" "$seven_zip" b -mmt="$hosts" -md18 1 >spanning.out || { echo "exit status $?"; tail -n 5 spanning.out; return 1; }
  grep -q '^Tot:' spanning.out || { echo "no totals"; cat spanning.out; return 1; }
}

for hosts in 2 3; do
  cases+=("tool.pigz.$hosts tool $hosts unpigz pigz -c -n -p $hosts input")
  cases+=("tool.pbzip2.$hosts tool $hosts bunzip2 pbzip2 -c -k -p$hosts input")
  cases+=("tool.xz.$hosts tool $hosts unxz xz -c -1 -T$hosts --block-size=4MiB input")
  cases+=("tool.zstd.$hosts tool $hosts unzstd zstd -q -c -6 -T$hosts input")
  cases+=("tool.7zr.$hosts pack_7z $hosts")
  cases+=("tool.7zr.benchmark.$hosts benchmark_7z $hosts")
done
