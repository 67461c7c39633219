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

# The boot files: firmware, device trees (which the firmware passes to U-Boot), U-Boot and its script.
boot=$(mktemp -d)
trap 'rm -rf "$boot"' EXIT
bits=''
if [ -d "$BINARIES_DIR/rpi-firmware" ]; then
    bits=32
    ! grep -q '^BR2_aarch64=y' "$BR2_CONFIG" || bits=64
    cp -r "$BINARIES_DIR/rpi-firmware/." "$boot"
    cp "$BINARIES_DIR/u-boot.bin" "$BINARIES_DIR"/bcm27*.dtb "$boot"
fi
"$repository/appliance/assemble" boot "$boot" $bits
config=$(dirname "$0")/../$board/config.txt
[ ! -e "$config" ] || cat "$config" >>"$boot/config.txt"
"$repository/appliance/assemble" set "$boot" "$target"

keys
"$repository/appliance/assemble" root "$target" "$compatible" "$version" "$keyring"
rm -f "$target/etc/berrymse-development"
[ -z "$development" ] || touch "$target/etc/berrymse-development"
# With the Raspberry Pi kernel, also checks the drivers of the board.
parts=''
! grep -q '^BR2_LINUX_KERNEL_DEFCONFIG="bcm' "$BR2_CONFIG" || parts=$board
"$repository/appliance/assemble" check "$target" "$parts"
