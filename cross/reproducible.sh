# Sourced by the scripts that build releases: the same commit gives the same bytes, wherever it is built. No path of the
# machine and no time of the build may go into the program; the lock file says the versions. Our own sources are compiled by
# relative paths, which need no help.
export LC_ALL=C.UTF-8 TZ=UTC
# OpenSSL writes a date into itself. Any that stays the same will do: with that of the commit, each commit would compile all C
# libraries anew.
export SOURCE_DATE_EPOCH=315532800
cargo_home=${CARGO_HOME:-$HOME/.cargo}

rust_flags() {
  echo "--remap-path-prefix=$cargo_home=/cargo"
}

# A section for each function, so that the linker leaves out what nobody calls; librdkafka's own script does not ask for it.
c_flags() {
  echo "-ffunction-sections -fdata-sections -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=${CARGO_TARGET_DIR:-$PWD/target}=/target"
}
