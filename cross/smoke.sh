#!/usr/bin/env bash
# Runs a program for another machine under qemu-user: cross/smoke.sh PROGRAM
# It checks the reference configuration; then the stories of the tests drive it against a real Kafka and a real Mosquitto: all
# arrives, also through a spool on a real file while Kafka is away and through kill -9.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:?which program?}")

# Bytes 18 and 19 of an ELF file name the machine.
case $(od -An -tx1 -j18 -N2 "$program" | tr -d ' ') in
  b700) runner="qemu-aarch64-static -L /usr/aarch64-linux-gnu" ;;
  2800) runner="qemu-arm-static -L /usr/arm-linux-gnueabihf" ;;
  *) runner="" ;;
esac

# shellcheck disable=SC2086 # a command of several words, or none
$runner "$program" --version
# shellcheck disable=SC2086
$runner "$program" --config config/gateway.toml check
FOREBAY_UNDER_TEST="$runner $program" FOREBAY_KILLS=1 cargo test --locked --test it -- \
  main_path::happy main_path::kafka_away::the_gateway_is_killed_while_kafka_is_away \
  main_path::commands::the_spool_says_the_same service::reload
