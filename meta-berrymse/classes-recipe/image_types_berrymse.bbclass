# The image type "card": an SD card image, created by appliance/assemble like all other images of this
# project. `IMAGE_FSTYPES = "card.xz card.bmap"` adds the compressed image and the block map.

IMAGE_TYPES += "card card.xz card.bmap"
IMAGE_TYPEDEP:card = "squashfs-zst"

# Additional files for the FAT partition, which always contains boot.scr, berrymse.toml, config.txt and
# cmdline.txt. For a Raspberry Pi: the firmware, device trees and U-Boot. FILE or PATTERN, followed by ";NAME"
# to rename the file.
BERRYMSE_BOOT_FILES ?= ""
BERRYMSE_BOOT_FILES:rpi ?= " \
    ${BOOTFILES_DIR_NAME}/*.bin ${BOOTFILES_DIR_NAME}/*.dat ${BOOTFILES_DIR_NAME}/*.elf \
    u-boot.bin ${@make_dtb_boot_files(d)} \
"
# On a Raspberry Pi, config.txt includes appliance/raspberrypi/config-32.txt or config-64.txt.
BERRYMSE_BITS ?= ""
BERRYMSE_BITS:rpi ?= "32"
BERRYMSE_BITS:rpi:aarch64 ?= "64"
# Lines that are added to config.txt.
BERRYMSE_CONFIG_TXT ?= ""

# Creates the boot files and adds them to the root file system, for updates. The image runs it after do_rootfs.
berrymse_boot_files[doc] = "Creates the boot files and adds them to the root file system"
berrymse_boot_files () {
    boot=${WORKDIR}/card-boot
    rm -rf $boot
    ${BERRYMSE_TREE}/appliance/assemble boot $boot ${BERRYMSE_BITS}
    files="${BERRYMSE_BOOT_FILES}"
    set -f
    for entry in $files; do
        pattern=${entry%%;*}
        set +f
        for file in ${DEPLOY_DIR_IMAGE}/$pattern; do
            case $entry in
                *\;*) name=${entry#*;} ;;
                *) name=${file##*/} ;;
            esac
            case $name in
                # Firmware with fewer functions, or for debugging.
                start*cd.elf|start*db.elf|fixup*cd.dat|fixup*db.dat) continue ;;
            esac
            install -D -m 0644 $file $boot/$name
        done
        set -f
    done
    set +f
    if [ -n "${BERRYMSE_CONFIG_TXT}" ]; then
        printf '\n%b\n' '${BERRYMSE_CONFIG_TXT}' >> $boot/config.txt
    fi
    ${BERRYMSE_TREE}/appliance/assemble set $boot ${IMAGE_ROOTFS}
}

IMAGE_CMD:card () {
    boot=${WORKDIR}/card-boot
    cp ${BERRYMSE_TREE}/appliance/berrymse.toml $boot
    find $boot -exec touch -h -d @${REPRODUCIBLE_TIMESTAMP_ROOTFS} '{}' +
    ${BERRYMSE_TREE}/appliance/assemble card ${IMGDEPLOYDIR}/${IMAGE_NAME}.card $boot \
        ${DEPLOY_DIR_IMAGE}/berrymse-slot-${MACHINE}.img ${IMGDEPLOYDIR}/${IMAGE_NAME}.squashfs-zst
}
do_image_card[file-checksums] += " \
    ${BERRYMSE_TREE}/appliance/assemble:True \
    ${BERRYMSE_TREE}/appliance/berrymse.toml:True \
    ${BERRYMSE_TREE}/appliance/layout:True \
    ${BERRYMSE_TREE}/appliance/overlays:True \
"
do_image_card[depends] += " \
    berrymse-slot:do_deploy \
    dosfstools-native:do_populate_sysroot \
    e2fsprogs-native:do_populate_sysroot \
    mtools-native:do_populate_sysroot \
    u-boot-tools-native:do_populate_sysroot \
    util-linux-native:do_populate_sysroot \
"
