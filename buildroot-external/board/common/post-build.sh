#!/usr/bin/env bash
# What the repository's folder appliance/ has for the root file system, put in place. Called by Buildroot
# with the root's folder and the board's name, after all packages and before the image is made.
set -euo pipefail
target=$1 board=$2
# shellcheck source=buildroot-external/board/common/lib.sh
. "${0%/*}/lib.sh"

# Buildroot's own start scripts: inittab and rcS are the appliance's.
rm -f "$target"/etc/init.d/[SK][0-9]*
# Links to where nothing is before the start: what is there is written through /etc's overlay.
for link in etc/resolv.conf etc/mtab etc/dropbear; do
    [ ! -L "$target/$link" ] || rm "$target/$link"
done
mkdir -p "$target"/etc/network/if-{pre-up,up,down,post-down}.d
ln -sf ../proc/self/mounts "$target/etc/mtab"
# Only one user of the bus: see appliance/root/etc/dbus-1.
rm -rf "$target"/etc/dbus-1/{session,system}.d "$target"/usr/share/dbus-1

keys
"$repository/appliance/assemble" root "$target" "$compatible" "$version" "$keyring"
rm -f "$target/etc/berrymse-development"
[ -z "$development" ] || touch "$target/etc/berrymse-development"
# With the Raspberry Pi's kernel, the drivers of the board, too.
parts=''
! grep -q '^BR2_LINUX_KERNEL_DEFCONFIG="bcm' "$BR2_CONFIG" || parts=$board
"$repository/appliance/assemble" check "$target" "$parts"
