#!/usr/bin/env bash
# mosquitto_pub and mosquitto_sub in the scenarios of the README.
set -euo pipefail

declare -A arg
while [ $# -gt 0 ]; do
  arg[${1#--}]=$2
  shift 2
done
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

common=(-h "${arg[host]}" -p "${arg[port]}" -V "mqttv${arg[version]/4/311}")
[ "${arg[scheme]}" = tcp ] || common+=(--cafile "${arg[ca]}")
[ -z "${arg[user]:-}" ] || common+=(-u "${arg[user]}" -P "${arg[password]}")
# A kept session: version 5 says for how long.
kept=(-c)
[ "${arg[version]}" = 4 ] || kept+=(-x 300)
prefix=${arg[prefix]}
id=${prefix//\//-}

expect() {
  [ "$2" = "$3" ] || { echo "$1: '${2:0:300}' instead of '${3:0:300}'" >&2; exit 1; }
}

# Starts a subscriber in the background that writes its messages to a file, and waits until it is subscribed: the debug
# output of -d is the only sign of that.
subscriber() {
  local name=$1 out="$work/$1"
  shift
  mkfifo "$out.log"
  # stdbuf: otherwise its log comes only when a block is full.
  stdbuf -oL mosquitto_sub "${common[@]}" -d -i "$id-$name" -F '> %q %r %p' "$@" >"$out.log" 2>&1 &
  last=$!
  # The pipe stays open for the rest of the output.
  exec {log}<"$out.log"
  local line
  while IFS= read -r line <&"$log"; do
    case $line in Subscribed*) break ;; esac
  done
  grep --line-buffered '^> ' <&"$log" >"$out" &
  collector=$!
  exec {log}<&-
}

publish() {
  mosquitto_pub "${common[@]}" -i "$id-pub" "$@"
}

qos() {
  local level
  for level in 0 1 2; do
    subscriber "qos$level" -t "$prefix/qos/$level" -q "$level" -C 20
    seq -f "qos %g" 20 | publish -t "$prefix/qos/$level" -q "$level" -l
    wait "$last" "$collector"
    expect "qos $level" "$(cat "$work/qos$level")" "$(seq -f "> $level 0 qos %g" 20)"
  done
}

resume() {
  mosquitto_sub "${common[@]}" "${kept[@]}" -i "$id-resume" -t "$prefix/resume" -q 1 -E
  seq -f "away %g" 5 | publish -t "$prefix/resume" -q 1 -l
  expect "resumed" "$(mosquitto_sub "${common[@]}" "${kept[@]}" -i "$id-resume" -t "$prefix/resume" -q 1 -C 5)" \
    "$(seq -f "away %g" 5)"
  # A clean session ends the kept one.
  mosquitto_sub "${common[@]}" -i "$id-resume" -t "$prefix/other" -E
}

will() {
  subscriber watcher -t "$prefix/will" -q 1 -C 1
  local watcher=$last watching=$collector
  subscriber mortal -t "$prefix/nothing" --will-topic "$prefix/will" --will-payload gone --will-qos 1
  kill -9 "$last"
  # Told apart from a failure: it was killed.
  wait "$last" 2>/dev/null || true
  wait "$watcher" "$watching"
  expect will "$(cat "$work/watcher")" "> 1 0 gone"
}

retained() {
  publish -t "$prefix/retained/a" -q 1 -r -m kept
  expect retained "$(mosquitto_sub "${common[@]}" -t "$prefix/retained/#" -q 1 -C 1 -F '%r %p')" "1 kept"
  publish -t "$prefix/retained/a" -q 1 -r -n
  subscriber late -t "$prefix/retained/#" -q 1 -C 1
  publish -t "$prefix/retained/b" -q 1 -m after
  wait "$last" "$collector"
  expect "nothing retained" "$(cat "$work/late")" "> 1 0 after"
}

large() {
  head -c 153600 /dev/urandom | base64 -w 0 >"$work/sent"
  subscriber large -t "$prefix/large" -q 1 -C 1
  publish -t "$prefix/large" -q 1 -f "$work/sent"
  wait "$last" "$collector"
  expect large "$(cat "$work/large")" "> 1 0 $(cat "$work/sent")"
}

properties() {
  local out="$work/properties.json"
  mosquitto_sub "${common[@]}" -i "$id-properties" -t "$prefix/properties" -q 1 -C 1 -F '%P|%R|%D|%C' >"$out" &
  last=$!
  # No sign of the subscription without -d: a retained message is there whenever it comes.
  publish -t "$prefix/properties" -q 1 -r -m p -D publish user-property line 7 -D publish user-property cell b \
    -D publish response-topic "$prefix/answers" -D publish correlation-data abc -D publish content-type text/plain
  wait "$last"
  expect properties "$(cat "$out")" "line:7 cell:b|$prefix/answers|abc|text/plain"
  publish -t "$prefix/properties" -q 1 -r -n
}

for scenario in ${arg[scenarios]//,/ }; do
  "$scenario"
  echo "ok $scenario"
done
