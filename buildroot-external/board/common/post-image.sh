#!/usr/bin/env bash
# The card's image and the update bundle, of what Buildroot has made. Called by Buildroot with the folder
# of images and the board's name. In images/ then are:
#
#   sdcard.img, .img.xz, .img.bmap   the card: for dd, for Raspberry Pi Imager, for bmaptool
#   berrymse-BOARD-VERSION.raucb     the update
#   slot.img, rootfs.squashfs        what both are made of
set -euo pipefail
images=$1 board=$2
here=${0%/*}
# shellcheck source=buildroot-external/board/common/lib.sh
. "$here/lib.sh"
keys
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The FAT partition: firmware, device trees (the firmware hands them on), U-Boot, its script.
mkdir "$work/boot" "$work/slot"
bits=''
if [ -d "$images/rpi-firmware" ]; then
    bits=32
    [ ! -e "$images/Image.gz" ] || bits=64
    cp -r "$images/rpi-firmware/." "$work/boot"
    cp "$images/u-boot.bin" "$work/boot"
    cp "$images"/bcm27*.dtb "$work/boot"
fi
"$repository/appliance/assemble" boot "$work/boot" $bits
[ ! -e "$here/../$board/config.txt" ] || cat "$here/../$board/config.txt" >>"$work/boot/config.txt"

# A slot: the kernel, and what U-Boot is to do with it.
kernel=Image.gz
[ -e "$images/$kernel" ] || kernel=zImage
cp "$images/$kernel" "$work/slot/${kernel,,}"
{
    echo "kernel=${kernel,,}"
    [ ! -d "$images/rpi-firmware" ] || echo "arguments=$(cat "$repository/appliance/raspberrypi/arguments")"
    [ ! -e "$here/../$board/slot.txt" ] || cat "$here/../$board/slot.txt"
} >"$work/slot/slot.txt"
# Builds of the same make the same.
find "$work" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-$(stat -c %Y "$images/$kernel")}" {} +

"$repository/appliance/assemble" slot "$images/slot.img" "$work/slot"
"$repository/appliance/assemble" card "$images/sdcard.img" "$work/boot" "$images/slot.img" "$images/rootfs.squashfs"
bmaptool create -o "$images/sdcard.img.bmap" "$images/sdcard.img"
xz -T0 -6 -k -f "$images/sdcard.img"
if [ -n "$certificate" ]; then
    rm -f "$images"/berrymse-*.raucb
    "$repository/appliance/assemble" bundle "$images/berrymse-$board-$version.raucb" "$compatible" "$version" \
        "$images/slot.img" "$images/rootfs.squashfs" "$certificate" "$key"
fi
[ -z "$development" ] || cat >&2 <<END

*** DEVELOPMENT KEYS: whoever has $BASE_DIR/keys can update every device with this image.
*** docs/appliance.md says how to have your own; BR2_PACKAGE_BERRYMSE_KEYRING is where they go.
END
