# Every guest program, natively and over 2 and 3 hosts: the same output, the same exit status.

# guest PROGRAM HOSTS
guest() {
  local program=$1 hosts=$2 name=${1##*/} input=/dev/null arguments=()
  [ -e "$guest_sources/$name.in" ] && input=$guest_sources/$name.in
  [ -e "$guest_sources/$name.args" ] && read -r -a arguments <"$guest_sources/$name.args"
  mkdir native spanning
  (cd native && OMP_NUM_THREADS=$hosts "$program" "${arguments[@]}" <"$input" >../native.out 2>../native.err)
  echo $? >native.status
  (cd spanning && OMP_NUM_THREADS=$hosts spanning "$hosts" "$program" "${arguments[@]}" <"$input" >../spanning.out 2>../spanning.err)
  echo $? >spanning.status
  head -n 5 spanning.err
  diff native.status spanning.status || { echo "exit status differs (< natively)"; return 1; }
  diff native.out spanning.out | head -n 10
  cmp native.out spanning.out || { echo "output differs (< natively)"; return 1; }
  # Files that it wrote.
  diff -r native spanning || { echo "files differ (< natively)"; return 1; }
}

guest_sources=$here/guests
for program in $(guest_programs); do
  for hosts in 2 3; do
    cases+=("guest.${program##*/}.$hosts guest $program $hosts")
  done
done
