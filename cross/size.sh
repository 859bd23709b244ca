#!/usr/bin/env bash
# The size of a stripped program against its budget (docs/footprint.md): cross/size.sh PROGRAM TARGET
set -euo pipefail
program=${1:?which program?}
case ${2:?for which target?} in
  aarch64-unknown-linux-gnu) budget=$((16 << 20)) ;;
  armv7-unknown-linux-gnueabihf) budget=$((12 << 20)) ;;
  x86_64-unknown-linux-gnu) budget=$((22 << 20)) ;;
  *) echo "$2 has no budget" >&2; exit 1 ;;
esac
size=$(stat -c %s "$program")
echo "$program: $size bytes ($((size * 10 / 1048576)) tenths of a MiB), of $budget allowed"
[ "$size" -le "$budget" ]
