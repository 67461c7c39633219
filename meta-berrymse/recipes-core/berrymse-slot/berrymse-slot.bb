SUMMARY = "Boot slot of the appliance: the kernel, and how U-Boot boots it"
DESCRIPTION = "A FAT file system with kernel and slot.txt, which appliance/boot.cmd reads. Part of every update."
LICENSE = "MIT"
DEPENDS = "dosfstools-native mtools-native"

inherit deploy nopackages

INHIBIT_DEFAULT_DEPS = "1"
PACKAGE_ARCH = "${MACHINE_ARCH}"

# Kernel arguments in addition to those from U-Boot. They are part of every update; updates do not change
# a Raspberry Pi's cmdline.txt.
BERRYMSE_ARGUMENTS ?= ""
BERRYMSE_ARGUMENTS:rpi ?= "bcm2835_wdt.heartbeat=79"
BERRYMSE_ARGUMENTS:qemuarm64 ?= "quiet"

do_compile() {
    slot=${B}/slot
    rm -rf $slot
    mkdir -p $slot
    # The smallest format that appliance/boot.cmd supports.
    case ${KERNEL_IMAGETYPE} in
        Image)
            gzip -9nc ${DEPLOY_DIR_IMAGE}/Image > $slot/kernel.gz
            echo "kernel=kernel.gz" > $slot/slot.txt
            ;;
        Image.gz)
            cp -L ${DEPLOY_DIR_IMAGE}/Image.gz $slot/kernel.gz
            echo "kernel=kernel.gz" > $slot/slot.txt
            ;;
        zImage)
            cp -L ${DEPLOY_DIR_IMAGE}/zImage $slot/zimage
            printf 'kernel=zimage\nstart=bootz\n' > $slot/slot.txt
            ;;
        *)
            bbfatal "KERNEL_IMAGETYPE is ${KERNEL_IMAGETYPE}: boot.cmd can boot only Image, Image.gz and zImage"
            ;;
    esac
    if [ -n "${BERRYMSE_ARGUMENTS}" ]; then
        echo "arguments=${BERRYMSE_ARGUMENTS}" >> $slot/slot.txt
    fi
    find $slot -exec touch -h -d @${SOURCE_DATE_EPOCH} '{}' +
    ${BERRYMSE_TREE}/appliance/assemble slot ${B}/slot.img $slot
}
do_compile[depends] += "virtual/kernel:do_deploy"
do_compile[file-checksums] += "${BERRYMSE_TREE}/appliance/assemble:True ${BERRYMSE_TREE}/appliance/layout:True"

do_deploy() {
    install -m 0644 ${B}/slot.img ${DEPLOYDIR}/berrymse-slot-${MACHINE}.img
}
addtask deploy before do_build after do_compile
