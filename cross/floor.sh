#!/usr/bin/env bash
# Says the newest glibc that a program asks for, and fails when that is newer than allowed: cross/floor.sh PROGRAM [2.34]
set -euo pipefail
program=${1:?which program?}
allowed=${2:-2.34}

# readelf reads programs of every machine.
asked=$(readelf -W --version-info "$program" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -1)
[ -n "$asked" ] || { echo "$program asks for no glibc: it is linked statically, or is no program" >&2; exit 1; }
echo "$program needs glibc $asked; allowed is $allowed"
[ "$(printf '%s\n' "$asked" "$allowed" | sort -V | tail -1)" = "$allowed" ]
