#!/usr/bin/env bash
# Builds the program for another machine with Debian 12's own compilers: C by gcc-*-linux-gnu*, Rust by rustc-web, whose
# source package gives the standard library for the target. Needs the Debian archive and the crates, nothing else.
#
#   cross/debian.sh TARGET [CARGO ARGUMENTS]     TARGET: aarch64-unknown-linux-gnu or armv7-unknown-linux-gnueabihf
#
# Without arguments: `build --release --locked`; the program is then target/dist/TARGET/forebay. With `prepare` only what a
# build needs is installed and compiled. What is compiled lies in
# FOREBAY_CROSS_CACHE (default ~/.cache/forebay-cross), so that the next clone compiles our own crate alone.
#
# FOREBAY_STD=rustup takes rustup's compiler and its `rustup target add` instead of Debian's.
# FOREBAY_CARGO="cargo auditable" names another cargo. With cross-rs see Cross.toml: the same settings.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?which target? see the head of this file}
shift
[ $# -gt 0 ] || set -- build --release --locked
cache=${FOREBAY_CROSS_CACHE:-${HOME:-/tmp}/.cache/forebay-cross}

case $target in
  aarch64-unknown-linux-gnu) gnu=aarch64-linux-gnu ;;
  armv7-unknown-linux-gnueabihf) gnu=arm-linux-gnueabihf ;;
  arm-unknown-linux-gnueabihf)
    echo "$target: Debian's compiler for it makes ARMv7 code, which a Pi Zero or 1 cannot run; use cross (Cross.toml)" >&2
    exit 2 ;;
  *) echo "$target: no such target; there are aarch64-unknown-linux-gnu and armv7-unknown-linux-gnueabihf" >&2; exit 2 ;;
esac

# What is needed, as Debian packages; each with a file that shows that it is there.
install_missing() {
  local missing=() entry
  local wanted="/usr/bin/$gnu-g++:g++-$gnu /usr/bin/qemu-aarch64-static:qemu-user-static /usr/bin/make:make /usr/bin/perl:perl"
  if [ "${FOREBAY_STD:-debian}" = debian ]; then
    wanted+=" /usr/bin/rustc:rustc-web /usr/bin/cargo:cargo-web /usr/lib/rustlib/src/rust/library/Cargo.lock:rust-web-src"
  fi
  for entry in $wanted; do
    [ -e "${entry%%:*}" ] || missing+=("${entry##*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "missing: as root, apt-get install ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# The standard library for the target, compiled once from the packaged source. It embeds bitcode, so that link-time
# optimisation reaches into it, and has unwind tables, so that panics abort or unwind as the profile says.
standard_library() {
  sysroot="$cache/std-$(/usr/bin/rustc -V | tr -c 'a-zA-Z0-9.\n' '-')"
  local lib="$sysroot/lib/rustlib/$target/lib"
  [ ! -e "$lib/.complete" ] || return 0
  echo "compiling the standard library for $target: some 3 CPU minutes, once" >&2
  local work
  work=$(mktemp -d)
  mkdir "$work/src"
  echo '#![no_std]' >"$work/src/lib.rs"
  cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "sysroot"
version = "0.0.0"
edition = "2021"
[profile.release]
opt-level = 3
debug = 0
TOML
  # The one build that needs unstable features; the program itself is built as by any stable compiler.
  (cd "$work" && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/target" \
    RUSTFLAGS="-Cembed-bitcode=yes -Cforce-unwind-tables=yes --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
    /usr/bin/cargo build -q --release --target "$target" -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test)
  rm -rf "$lib"
  mkdir -p "$lib"
  cp "$work/target/$target"/release/deps/*.rlib "$lib/"
  rm -f "$lib"/libsysroot-*.rlib
  # Compiled with its own strategy, else `panic = "abort"` is refused.
  local hash
  hash=$(basename "$lib"/libpanic_abort-*.rlib .rlib)
  hash=${hash#libpanic_abort}
  RUSTC_BOOTSTRAP=1 /usr/bin/rustc --crate-name panic_abort --edition=2024 --crate-type lib --emit=link \
    /usr/lib/rustlib/src/rust/library/panic_abort/src/lib.rs --target "$target" --sysroot "$sysroot" --out-dir "$lib" \
    -C opt-level=3 -C panic=abort -C embed-bitcode=yes -C force-unwind-tables=yes \
    -C "metadata=x$hash" -C "extra-filename=$hash" -Zforce-unstable-if-unmarked --cap-lints allow
  touch "$lib/.complete"
  rm -rf "$work"
}

install_missing
flags=""
if [ "${FOREBAY_STD:-debian}" = debian ]; then
  # Debian's first compiler of a release may be too old; its security archive has the one that is meant.
  needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have=$(/usr/bin/rustc -V | cut -d' ' -f2)
  if [ "$(printf '%s\n' "$needed" "$have" | sort -V | head -1)" != "$needed" ]; then
    echo "/usr/bin/rustc is $have, and $needed is needed: apt-get install rustc-web from the security archive" >&2
    exit 1
  fi
  standard_library
  flags="--sysroot=$sysroot"
  # The name without its path is rustup's where that comes first.
  export RUSTC=/usr/bin/rustc
  cargo=${FOREBAY_CARGO:-/usr/bin/cargo}
else
  rustup target add "$target"
  cargo=${FOREBAY_CARGO:-cargo}
fi

if [ "$1" = prepare ]; then
  exit 0
fi

. cross/reproducible.sh
export CC=$gnu-gcc CXX=$gnu-g++ AR=$gnu-ar RANLIB=$gnu-ranlib
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
upper=$(echo "$target" | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${upper}_RUSTFLAGS=$flags $(rust_flags)"
CFLAGS=$(c_flags)
export CFLAGS CXXFLAGS=$CFLAGS

# shellcheck disable=SC2086 # a command of several words
$cargo "$@" --target "$target"

built=$CARGO_TARGET_DIR/$target/release/forebay
if [[ " $* " == *" build "* && " $* " == *" --release "* ]]; then
  install -D -m 0755 "$built" "target/dist/$target/forebay"
  echo "target/dist/$target/forebay"
fi
