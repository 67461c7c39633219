SUMMARY = "Update bundle of the BerryMSE appliance, for its web page or RAUC"
DESCRIPTION = "Kernel and root file system, which a device that trusts the signer installs in its inactive slot."
LICENSE = "MIT"

require conf/distro/include/berrymse-version.inc
PV = "${BERRYMSE_VERSION}"

inherit bundle

# Names, formats and slots match appliance/root/etc/rauc/system.conf. RAUC_CERT_FILE and RAUC_KEY_FILE sign
# the bundle.
RAUC_BUNDLE_COMPATIBLE = "berrymse-${MACHINE}"
RAUC_BUNDLE_VERSION = "${PV}"
RAUC_BUNDLE_DESCRIPTION = "BerryMSE ${PV}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "boot rootfs"

RAUC_SLOT_boot = "berrymse-slot"
RAUC_SLOT_boot[type] = "boot"
RAUC_SLOT_boot[file] = "berrymse-slot-${MACHINE}.img"
RAUC_SLOT_boot[rename] = "boot.img"
RAUC_SLOT_boot[adaptive] = "block-hash-index"

RAUC_SLOT_rootfs = "berrymse-image"
RAUC_SLOT_rootfs[fstype] = "squashfs-zst"
RAUC_SLOT_rootfs[rename] = "root.img"
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"

# The images are already compressed, or compress well enough block by block.
BUNDLE_ARGS += ' --mksquashfs-args="-comp zstd -b 64k -no-progress"'

python () {
    if not d.getVar('RAUC_KEY_FILE') or not d.getVar('RAUC_CERT_FILE'):
        raise bb.parse.SkipRecipe("no signing key: set RAUC_KEY_FILE and RAUC_CERT_FILE (docs/yocto.md, Use your own keys), "
                                  "or add kas/development-keys.yml")
}
do_bundle[depends] += "${@'berrymse-development-keys:do_keys' if d.getVar('BERRYMSE_DEVELOPMENT_KEYS') else ''}"
