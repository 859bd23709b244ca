#!/usr/bin/env bash
# Makes a release of the checked-out commit: programs, packages, tarballs, SBOM, checksums, and a signature.
#
#   FOREBAY_SIGN_KEY=~/.ssh/release cross/release.sh [TARGET...]      into target/dist/
#
# On Debian 12, x86-64. Needs cargo-deb, cargo-auditable, cargo-cyclonedx and cargo-deny (cargo install --locked NAME).
# Without FOREBAY_SIGN_KEY, an ssh key, the checksums stay unsigned, and that is said.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf
# shellcheck source=cross/reproducible.sh
. cross/reproducible.sh

if [ -n "$(git status --porcelain)" ]; then
  echo "failed to release: the tree differs from its commit; a release is made of a commit" >&2
  exit 1
fi
for tool in deb auditable cyclonedx deny; do
  cargo "$tool" --version >/dev/null 2>&1 || { echo "missing: cargo install --locked cargo-$tool" >&2; exit 1; }
done

build() {
  case $1 in
    x86_64-unknown-linux-gnu)
      CFLAGS=$(c_flags) CXXFLAGS=$(c_flags) CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS=$(rust_flags) \
        cargo auditable build --release --locked --target "$1"
      install -D -m 0755 "target/$1/release/forebay" "target/dist/$1/forebay" ;;
    *) FOREBAY_CARGO="cargo auditable" cross/debian.sh "$1" ;;
  esac
}

rm -rf target/dist
cargo deny --locked --all-features check
for target in "$@"; do
  build "$target"
  program=target/dist/$target/forebay
  cross/floor.sh "$program"
  cross/size.sh "$program" "$target"
  packaging/build.sh "$target" "$program"
  # Beside Cargo.toml, as the tool will have it.
  cargo cyclonedx --format json --target "$target" --override-filename "forebay-$target.cdx"
  mv "forebay-$target.cdx.json" target/dist/
done

cd target/dist
sha256sum ./*.deb ./*.tar.xz ./*.cdx.json >SHA256SUMS
if [ -n "${FOREBAY_SIGN_KEY:-}" ]; then
  ssh-keygen -Y sign -f "$FOREBAY_SIGN_KEY" -n forebay-release SHA256SUMS
else
  echo "skipped: the signature, as FOREBAY_SIGN_KEY names no key"
fi
cat SHA256SUMS
