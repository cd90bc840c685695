# What the engine counts about who fights over what, and what `xenspan advise` makes of it: guests with known fights.

# fights VCPUS MODE: two hosts; advice in advice.json and advice.txt.
fights() {
  "$xenspan" "${bed_options[@]}" run --vcpus "$1" --hosts a,b --name fights --stats=stats.json -- \
    "$build/tests/host/guests/fights" "$2" >out 2>err || { echo "exit status $?"; cat out err; return 1; }
  "$xenspan" advise --from stats.json --json >advice.json && "$xenspan" advise --from stats.json >advice.txt
  local status=$?
  cat advice.txt
  return $status
}
expect() { # FILE FILTER WHAT
  jq -e "$2" "$1" >/dev/null || { echo "$3:"; jq -c . "$1"; return 1; }
}

# vCPUs 0 and 2, and 1 and 3, fight in pairs, and each pair is on two hosts.
pairs_are_named() {
  local bad=0
  fights 4 pairs || return 1
  expect stats.json '.placement == ["a", "a", "b", "b"]' "the vCPUs are not where this test wants them" || return 1
  expect stats.json '.sharing.vcpus | .["0"]["2"] > 50 and .["2"]["0"] > 50 and .["1"]["3"] > 50 and .["3"]["1"] > 50' \
    "the matrix does not show the fights" || bad=1
  expect stats.json '.sharing.vcpus | .["0"]["2"] > 4 * .["0"]["3"] and .["3"]["1"] > 4 * .["3"]["0"]' \
    "the matrix shows other fights" || bad=1
  expect stats.json '.sharing.hosts | .a.b > 100 and .b.a > 100' "the matrix of hosts is empty" || bad=1
  expect stats.json '[.sharing.pages[:2][].users[].name] | any(test("^even_counter .fights")) and any(test("^odd_counter .fights"))' \
    "the most contended pages are not those of the counters" || bad=1
  expect advice.json '[.pairs[:2][].vcpus] | sort == [[0, 2], [1, 3]]' "wrong pairs" || bad=1
  expect advice.json '.placement.hosts == {"a": [0, 2], "b": [1, 3]}' "wrong placement" || bad=1
  expect advice.json '.placement | .faults_then * 2 < .faults_now' "nothing saved" || bad=1
  expect advice.json '[.shared[].places[].name] | any(test("^even_counter "))' "the counters are not named as shared" || bad=1
  expect advice.json '[.pad[].parts[][].name] | any(test("_counter")) | not' "padding is advised where it does not help" || bad=1
  grep -q '^vCPUs 0 and 2 take pages from each other .* times a second' advice.txt || { echo "the text names no pair"; bad=1; }
  return $bad
}

# Two counters of two vCPUs on one page.
false_sharing_is_named() {
  local bad=0
  fights 2 false || return 1
  expect advice.json '.pad[0].parts | length == 2' "no false sharing found" || return 1
  expect advice.json '[.pad[0].parts[][] | {low, name: (.name | sub(" .*"; "")), writes, vcpus: (.vcpus | length)}] |
    sort_by(.low) == [{low: 0, name: "hits", writes: true, vcpus: 1}, {low: 8, name: "hits+0x8", writes: true, vcpus: 1}]' \
    "the variables are not named" || bad=1
  expect advice.json '.pad[0].align == 4096' "no size to pad to" || bad=1
  grep -q 'writes offset 0x8: hits+0x8 (fights)' advice.txt || { echo "the text does not name the variable"; bad=1; }
  return $bad
}

# Of a domain that runs, and what is no domain and no file of ours.
advise_running() {
  spanning_command 2 --name advised "$guest_probe" sleep 60 >out 2>err &
  local pid=$! bad=0
  wait_until 20 grep -q ready out || { echo "the guest does not start"; cat err; return 1; }
  cli advise advised >advice.txt || { echo "xenspan advise fails"; bad=1; }
  grep -q '^Domain advised: ' advice.txt || { echo "no advice:"; cat advice.txt; bad=1; }
  cli advise advised --json | jq -e '.domain == "advised"' >/dev/null || { echo "no JSON"; bad=1; }
  cli destroy advised
  wait "$pid"
  echo '{"sharing": []}' >other.json
  cli advise --from other.json 2>err && { echo "takes any file"; bad=1; }
  grep -q 'other.json: .*--stats=FILE' err || { cat err; bad=1; }
  cli advise --from missing.json 2>err && bad=1
  grep -q 'cannot read missing.json' err || { cat err; bad=1; }
  cli advise 2>err; [ $? -eq 2 ] || { echo "advise of nothing is no wrong usage"; bad=1; }
  return $bad
}

cases+=("advise.pairs pairs_are_named" "advise.false_sharing false_sharing_is_named" "advise.running advise_running")
