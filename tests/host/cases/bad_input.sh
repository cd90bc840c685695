# Bad input: each case ends with one line that names the thing, and the shell's exit status for it.

# refused STATUS PATTERN ARGUMENTS OF xenspan...
refused() {
  local expected=$1 pattern=$2
  shift 2
  timeout 60 "$xenspan" "${bed_options[@]}" "$@" >out 2>err </dev/null
  local status=$?
  cat err
  [ $status -eq "$expected" ] || { echo "status $status, not $expected"; return 1; }
  grep -Eiq -- "$pattern" err || { echo "the message does not match $pattern"; return 1; }
  [ "$(wc -l <err)" -le 2 ] || { echo "more than one line"; return 1; }
}

no_program() { refused 127 'no-such-program' run --hosts "$(bed_hosts 2)" -- no-such-program; }
no_path() { refused 127 '/no/such/program' run --hosts "$(bed_hosts 2)" -- /no/such/program; }
no_host() { refused 125 'nowhere' run --hosts "$(bed_hosts 1),nowhere" -- /bin/true; }
a_folder() { refused 126 '/tmp' run --hosts "$(bed_hosts 2)" -- /tmp; }
not_executable() { : >plain; chmod 644 plain; refused 126 'plain' run --hosts "$(bed_hosts 2)" -- ./plain; }
too_much_memory() { refused 125 'memory' run --memory 900T --hosts "$(bed_hosts 2)" -- /bin/true; }
bad_memory() { refused 125 'memory|lots' run --memory lots --hosts "$(bed_hosts 2)" -- /bin/true; }
no_feature() { refused 125 'feature "speed".*batching' run --without hold,speed --hosts "$(bed_hosts 2)" -- /bin/true; }
too_few_vcpus() { refused 125 'vcpu' run --vcpus 0 --hosts "$(bed_hosts 2)" -- /bin/true; }

# An ELF header made by hand: class, machine.
elf_header() {
  printf '\x7fELF'"$1"'\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00'"$2"'\x01\x00\x00\x00'
  head -c 4072 /dev/zero
}
elf32() { elf_header '\x01' '\x03\x00' >prog; chmod 755 prog; refused 126 '32' run --hosts "$(bed_hosts 2)" -- ./prog; }
aarch64() { elf_header '\x02' '\xb7\x00' >prog; chmod 755 prog; refused 126 'aarch64|arm|x86' run --hosts "$(bed_hosts 2)" -- ./prog; }
cut_elf() { head -c 60 /bin/true >prog; chmod 755 prog; refused 126 'prog' run --hosts "$(bed_hosts 2)" -- ./prog; }

no_such_domain() { refused 1 'nothing-here' stats nothing-here; }
no_such_create_file() { refused 1 'missing.cfg' create missing.cfg; }

# One user may not end another's domain.
others_domain() {
  spanning_command 2 --name roots "$guest_probe" sleep 60 >out.guest 2>err.guest &
  local pid=$!
  wait_until 20 grep -q ready out.guest || { echo "the guest does not start"; cat err.guest; return 1; }
  local bad=0
  if as_nobody cli destroy roots 2>err; then echo "nobody ended a domain of root"; bad=1; fi
  cat err
  cli destroy roots
  wait "$pid"
  return $bad
}

for name in no_program no_path no_host a_folder not_executable too_much_memory bad_memory too_few_vcpus no_feature elf32 aarch64 \
  cut_elf no_such_domain no_such_create_file others_domain; do
  cases+=("bad.$name $name")
done
