#!/usr/bin/env bash
# Makes the Debian package and the tarball of one target out of a program that has been built already:
#
#   packaging/build.sh TARGET PROGRAM      into target/dist/, with SHA256SUMS
#
# Needs cargo-deb (cargo install --locked cargo-deb), python3 and xz.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?which target?}
program=${2:?which program?}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name=forebay-$version-$target

# Man pages and completions are the same on every machine: the one at hand prints them.
manuals() {
  rm -rf target/manuals
  cargo run -q --locked --features manuals --example manuals -- target/manuals
  packaging/licences.py "$target" >target/manuals/third-party-licences.txt
  gzip -9n <CHANGELOG.md >target/manuals/changelog.gz
}

deb() {
  # cargo-deb looks for the program where cargo would have put it.
  local stage=target/stage
  rm -rf "$stage"
  install -D -m 0755 "$program" "$stage/$target/release/forebay"
  CARGO_TARGET_DIR=$stage cargo deb -q --no-build --no-strip --locked --target "$target" -o target/dist/
}

tarball() {
  local root=target/stage/$name
  install -D -m 0755 "$program" "$root/bin/forebay"
  mkdir -p "$root/share/man/man1" "$root/share/completions" "$root/systemd"
  cp target/manuals/*.1 "$root/share/man/man1/"
  cp target/manuals/forebay.bash target/manuals/_forebay target/manuals/forebay.fish "$root/share/completions/"
  cp target/manuals/third-party-licences.txt LICENSE README.md CHANGELOG.md SECURITY.md "$root/"
  cp systemd/* packaging/forebay.sysusers packaging/60-forebay.rules "$root/systemd/"
  cp -r config boards docs "$root/"
  # One order, one owner, one time: the same files give the same bytes.
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C target/stage -c "$name" |
    xz -T1 -6 >"target/dist/$name.tar.xz"
}

mkdir -p target/dist
manuals
# From here on: a date in the environment would have the C libraries of the machine's own build compiled anew.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC
deb
tarball
(cd target/dist && sha256sum ./*.deb ./*.tar.xz >SHA256SUMS)
cat target/dist/SHA256SUMS
