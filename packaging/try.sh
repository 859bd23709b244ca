#!/usr/bin/env bash
# Installs a package in a Debian 12 of its own and looks whether it does what it promises, through upgrade, downgrade and purge:
#
#   packaging/try.sh PACKAGE.deb         as root; needs mmdebstrap; some 2 minutes, the first time 3
#
# There is no running systemd inside: units are enabled and not started, and the gateway is started by hand as its user.
set -euo pipefail

deb=$(realpath "${1:?which package?}")
cache=${FOREBAY_CROSS_CACHE:-$HOME/.cache/forebay-cross}
base=$cache/bookworm-$(dpkg --print-architecture).tar
root=$(mktemp -d)
gateway=""
# shellcheck disable=SC2317 # called by the trap
clean_up() {
  [ -z "$gateway" ] || kill -KILL "$gateway" 2>/dev/null || true
  rm -rf "$root"
}
trap clean_up EXIT

fail() {
  echo "packaging/try.sh: $*" >&2
  exit 1
}
inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
step() { echo "== $*"; }
# The same files under another version.
as_version() {
  local work=$root/tmp/work
  rm -rf "$work"
  dpkg-deb -R "$deb" "$work"
  sed -i "s/^Version: .*/Version: $1/" "$work/DEBIAN/control"
  dpkg-deb -b "$work" "$root/tmp/forebay_$1.deb" >/dev/null
  rm -rf "$work"
}

if [ ! -e "$base" ]; then
  mkdir -p "$cache"
  mmdebstrap -q --variant=minbase --include=systemd,ca-certificates,libgcc-s1 bookworm "${base%.tar}.new.tar"
  mv "${base%.tar}.new.tar" "$base"
fi
tar -C "$root" -xf "$base" --exclude='./dev/*'
# A plain file: what the programs here need of it is that it swallows.
: >"$root/dev/null"
chmod 666 "$root/dev/null"
cp "$deb" "$root/tmp/forebay.deb"

step "install"
inside dpkg -i /tmp/forebay.deb
inside id forebay
[ -L "$root/etc/systemd/system/multi-user.target.wants/forebay.service" ] || fail "the service is not enabled"
[ "$(stat -c %a "$root/etc/forebay")" = 2750 ] || fail "/etc/forebay has mode $(stat -c %a "$root/etc/forebay")"
inside forebay --version
inside forebay check
for file in usr/share/man/man1/forebay.1.gz usr/share/man/man1/forebay-run.1.gz \
  usr/share/bash-completion/completions/forebay usr/lib/udev/rules.d/60-forebay.rules \
  usr/share/doc/forebay/copyright usr/share/doc/forebay/examples/mosquitto.conf \
  usr/lib/systemd/system/forebay@.service usr/share/forebay/boards/raspberry-pi-4/README.md; do
  [ -e "$root/$file" ] || fail "$file is missing"
done

step "a reading into the spool, as the service's user"
install -d -m 0750 "$root/var/lib/forebay" "$root/run/forebay"
inside chown forebay:forebay /var/lib/forebay /run/forebay
# Not through `inside`: the signal is for the gateway, not for a shell before it.
chroot "$root" /usr/bin/setpriv --reuid=forebay --regid=forebay --init-groups /usr/bin/forebay run >"$root/tmp/log" 2>&1 &
gateway=$!
for _ in $(seq 100); do [ -S "$root/run/forebay/control.sock" ] && break; sleep 0.1; done
inside forebay status >/dev/null || fail "the gateway does not answer: $(cat "$root/tmp/log")"
inside forebay reload
kill -TERM $gateway
wait $gateway || fail "it did not stop in good order: $(cat "$root/tmp/log")"
gateway=""
before=$(inside forebay spool status)

step "upgrade keeps a changed configuration and the spool"
echo "# mine" >>"$root/etc/forebay/gateway.toml"
as_version 99.0-1
inside dpkg -i /tmp/forebay_99.0-1.deb
grep -q '^# mine' "$root/etc/forebay/gateway.toml" || fail "the configuration is not mine any more"
[ "$(inside forebay spool status)" = "$before" ] || fail "the spool has changed"

step "downgrade"
as_version 0.0.1-1
inside dpkg -i --force-downgrade /tmp/forebay_0.0.1-1.deb
[ "$(inside forebay spool status)" = "$before" ] || fail "the spool has changed"

step "remove and purge keep the spool"
inside dpkg -r forebay
[ -e "$root/etc/forebay/gateway.toml" ] || fail "the configuration went with the removal"
inside dpkg -P forebay
[ ! -e "$root/etc/forebay/gateway.toml" ] || fail "the configuration stayed after the purge"
[ -e "$root/var/lib/forebay/spool.db" ] || fail "the spool went with the purge"

step "install again finds the spool; a purge that is asked for it takes it"
inside dpkg -i /tmp/forebay.deb
[ "$(inside forebay spool status)" = "$before" ] || fail "the spool has changed"
inside env FOREBAY_PURGE_SPOOL=yes dpkg -P forebay
[ ! -e "$root/var/lib/forebay" ] || fail "the spool stayed although it was asked away"

echo "== done: install, upgrade, downgrade, remove, purge"
