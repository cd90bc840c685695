# bash completion for xenspan(1). Commands and options are asked of `xenspan --help`, so that none is forgotten here; this
# file knows what their values are.

_xenspan_help() { # WORDS...: the help of a command
  "${words[0]}" "$@" --help 2>/dev/null
}
_xenspan_options() { # WORDS OF A COMMAND...
  _xenspan_help "$@" | awk '/^ +-/ { gsub(",", " "); for (i = 1; i <= NF && $i ~ /^-/; i++) print $i }'
}
_xenspan_commands() { # WORDS OF A COMMAND...
  _xenspan_help "$@" | awk '/^Subcommands:/ { inside = 1; next } inside && NF { print $1 }'
}
_xenspan_names() { # list | hosts: the first column, asked of the daemon that the line chooses
  "${words[0]}" "${daemon[@]}" "$1" 2>/dev/null | awk 'NR > 1 { print $1 }'
}
_xenspan_daemons() { # those of this machine, and of the test bed that is the default
  local socket bed
  bed=$(readlink /run/xenspan/default)
  for socket in /run/xenspan/*/control ${bed:+"${bed%/*/control}"/*/control}; do
    [[ -e $socket ]] && socket=${socket%/control} && echo "${socket##*/}"
  done
}

_xenspan() {
  local cur prev words cword split
  _init_completion -s || return
  local i command=() daemon=()
  for ((i = 1; i < cword; i++)); do
    case ${words[i]} in
      --host | --socket) daemon=("${words[i]}" "${words[i + 1]}") && ((i++)) ;;
      -*) ;;
      *)
        command+=("${words[i]}")
        [[ ${command[0]-} == testbed && ${#command[@]} -lt 2 ]] || break
        ;;
    esac
  done

  # The first word of `run` that is no option, and what follows: any command of the system.
  if [[ ${command[0]-} == run ]]; then
    for ((i++; i <= cword; i++)); do
      case ${words[i]} in
        --vcpus | --memory | --hosts | --name | --prefetch | --transport | --policy) ((i++)) ;;
        --) ((++i <= cword)) && _command_offset "$i" && return ;;
        -*) ;;
        *) [[ $i -eq $cword && (-z $cur || $split == true) ]] || { _command_offset "$i"; return; } ;;
      esac
    done
  fi

  case $prev in
    --host)
      COMPREPLY=($(compgen -W "$(_xenspan_daemons)" -- "$cur"))
      return
      ;;
    --hosts)
      local before=
      [[ $cur == *,* ]] && before=${cur%,*},
      COMPREPLY=($(compgen -P "$before" -W "$(_xenspan_names hosts)" -- "${cur##*,}"))
      compopt -o nospace
      return
      ;;
    --stats)
      $split && _filedir && return
      ;;
    --transport)
      COMPREPLY=($(compgen -W "tcp verbs auto" -- "$cur"))
      return
      ;;
    --policy)
      COMPREPLY=($(compgen -W "spread pack load affinity" -- "$cur"))
      return
      ;;
    --socket | --from)
      _filedir
      return
      ;;
    --vcpus | --memory | --name | --prefetch | --without | --delay | -d | --rate | --prefix | --iterations | -n) return ;;
  esac
  $split && return

  local choices=
  if [[ $cur == -* ]]; then
    choices=$(_xenspan_options "${command[@]}")
    [[ ${command[0]-} == run ]] && choices+=" --"
  else
    case ${command[*]} in
      "" | testbed) choices=$(_xenspan_commands "${command[@]}") ;;
      destroy | stats | advise) choices=$(_xenspan_names list) ;;
      add-host | drain | remove-host)
        if ((cword == i + 1)); then choices=$(_xenspan_names list); else choices=$(_xenspan_names hosts); fi
        ;;
      create | check | cluster-key) _filedir && return ;;
      run) choices="$(_xenspan_options run) --" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$choices" -- "$cur"))
} && complete -F _xenspan xenspan
