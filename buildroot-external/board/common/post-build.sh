#!/usr/bin/env bash
# Adds the files in appliance/ to the root file system. Buildroot calls this script with the directory of
# the root file system and the name of the board, after building all packages and before creating the
# image.
set -euo pipefail
target=$1 board=$2
# shellcheck source=buildroot-external/board/common/lib.sh
. "${0%/*}/lib.sh"

# Buildroot's init scripts are not used: the appliance has its own inittab and rcS.
rm -f "$target"/etc/init.d/[SK][0-9]*
# Links whose targets do not exist at build time. The files are written to the overlay of /etc instead.
for link in etc/resolv.conf etc/mtab etc/dropbear; do
    [ ! -L "$target/$link" ] || rm "$target/$link"
done
mkdir -p "$target"/etc/network/if-{pre-up,up,down,post-down}.d
ln -sf ../proc/self/mounts "$target/etc/mtab"
# The bus is only for berrymse and RAUC: see appliance/root/etc/dbus-1.
rm -rf "$target"/etc/dbus-1/{session,system}.d "$target"/usr/share/dbus-1

keys
"$repository/appliance/assemble" root "$target" "$compatible" "$version" "$keyring"
rm -f "$target/etc/berrymse-development"
[ -z "$development" ] || touch "$target/etc/berrymse-development"
# With the Raspberry Pi kernel, also checks the drivers of the board.
parts=''
! grep -q '^BR2_LINUX_KERNEL_DEFCONFIG="bcm' "$BR2_CONFIG" || parts=$board
"$repository/appliance/assemble" check "$target" "$parts"
