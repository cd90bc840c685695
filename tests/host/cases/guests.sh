# Every guest program, natively and over 2 and 3 hosts: the same output, the same exit status.

# guest PROGRAM HOSTS ARGUMENTS...
guest() {
  local program=$1 hosts=$2
  shift 2
  mkdir native spanning
  (cd native && OMP_NUM_THREADS=$hosts "$program" "$@" </dev/null >../native.out 2>../native.err)
  echo $? >native.status
  (cd spanning && OMP_NUM_THREADS=$hosts spanning "$hosts" "$program" "$@" </dev/null >../spanning.out 2>../spanning.err)
  echo $? >spanning.status
  head -n 5 spanning.err
  diff native.status spanning.status || { echo "exit status differs (< natively)"; return 1; }
  diff native.out spanning.out | head -n 10
  cmp native.out spanning.out || { echo "output differs (< natively)"; return 1; }
  # Files that it wrote.
  diff -r native spanning || { echo "files differ (< natively)"; return 1; }
}

# Every way to ask for the number of processors gives the domain's. There is no native run to compare with: this machine
# has another number.
processors() {
  local hosts=$1
  shift
  env -u OMP_NUM_THREADS "$xenspan" "${bed_options[@]}" run --vcpus "$hosts" --hosts "$(bed_hosts "$hosts")" -- "$@" "$hosts"
}

for program in $(guest_programs); do
  name=${program##*/}
  for hosts in 2 3; do
    # The other kinds of executable differ in how they are loaded, not in how they run: over 2 hosts only.
    case $hosts.$name in 3.*-nopie | 3.*-static | 3.*-static-pie) continue ;; esac
    case $name in
      cpus*) cases+=("guest.$name.$hosts processors $hosts $program") ;;
      exit_codes*)
        # How it ends, and with what.
        for how in "return 3" "exit 4" "thread-exit 5" "thread-_exit 6" "main-leaves" "busy 7" "signal 15" "signal 9"; do
          cases+=("guest.$name.${how// /.}.$hosts guest $program $hosts $how")
        done
        ;;
      *) cases+=("guest.$name.$hosts guest $program $hosts first second") ;;
    esac
  done
done
