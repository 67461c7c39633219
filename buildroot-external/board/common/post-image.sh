#!/usr/bin/env bash
# Creates the card image and the update bundle from Buildroot's output. Buildroot calls this script with the
# images directory and the name of the board. The results are in images/:
#
#   sdcard.img, .img.xz, .img.bmap   the card: for dd, for Raspberry Pi Imager, for bmaptool
#   berrymse-BOARD-VERSION.raucb     the update
#   slot.img, rootfs.squashfs        the contents of both
set -euo pipefail
images=$1 board=$2
here=${0%/*}
# shellcheck source=buildroot-external/board/common/lib.sh
. "$here/lib.sh"
keys
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The FAT partition: the boot files, which post-build.sh has added to the root file system, and the configuration.
mkdir "$work/slot"
cp -r "$TARGET_DIR/usr/share/berrymse/boot" "$work/boot"
cp "$repository/appliance/berrymse.toml" "$work/boot"

# A slot: the kernel, and slot.txt, which tells U-Boot how to boot it.
kernel=Image.gz
[ -e "$images/$kernel" ] || kernel=zImage
cp "$images/$kernel" "$work/slot/${kernel,,}"
{
    echo "kernel=${kernel,,}"
    [ ! -d "$images/rpi-firmware" ] || echo "arguments=$(cat "$repository/appliance/raspberrypi/arguments")"
    [ ! -e "$here/../$board/slot.txt" ] || cat "$here/../$board/slot.txt"
} >"$work/slot/slot.txt"
# Fixed timestamps, so that builds are reproducible.
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

*** DEVELOPMENT KEYS: anyone who has $BASE_DIR/keys can sign updates for every device with this image.
*** To use your own keys, see docs/appliance.md and set BR2_PACKAGE_BERRYMSE_KEYRING.
END
