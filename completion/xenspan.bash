# bash completion for xenspan(1)

_xenspan_words() { # FIRST COLUMN of a listing, without its title
  xenspan "$1" 2>/dev/null | awk 'NR > 1 { print $1 }'
}

_xenspan() {
  local cur prev words cword
  _init_completion || return
  local commands="run create list hosts destroy stats top testbed cluster-key"
  local i command=
  for ((i = 1; i < cword; i++)); do
    case ${words[i]} in
      --) break ;;
      --socket) ((i++)) ;;
      -*) ;;
      *) command=${words[i]}; break ;;
    esac
  done

  # After `run --` comes any command of the system.
  if [[ $command == run ]]; then
    for ((; i < cword; i++)); do
      if [[ ${words[i]} == -- ]]; then
        _command_offset $((i + 1))
        return
      fi
    done
  fi

  case $prev in
    --hosts)
      local done=
      [[ $cur == *,* ]] && done=${cur%,*},
      COMPREPLY=($(compgen -P "$done" -W "$(_xenspan_words hosts)" -- "${cur##*,}"))
      compopt -o nospace
      return
      ;;
    --stats | --socket | --key)
      _filedir
      return
      ;;
  esac

  case $command in
    "") COMPREPLY=($(compgen -W "$commands --help --version" -- "$cur")) ;;
    run)
      COMPREPLY=($(compgen -W "--vcpus --memory --hosts --name --prefetch --stats --help --" -- "$cur"))
      ;;
    create) [[ $cur == -* ]] && COMPREPLY=($(compgen -W "--help" -- "$cur")) || _filedir ;;
    destroy | stats) COMPREPLY=($(compgen -W "$(_xenspan_words list) --help" -- "$cur")) ;;
    testbed) COMPREPLY=($(compgen -W "up down --prefix --delay --rate --help" -- "$cur")) ;;
    list | hosts) COMPREPLY=($(compgen -W "--json --help" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -W "--help" -- "$cur")) ;;
  esac
} && complete -F _xenspan xenspan
