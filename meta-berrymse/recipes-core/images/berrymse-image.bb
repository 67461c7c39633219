SUMMARY = "BerryMSE appliance, which streams when powered on"
DESCRIPTION = "An SD card image with two systems that are updated in turn, configured by one file on its FAT \
partition. docs/appliance.md describes the boot process."
LICENSE = "MIT"

require conf/distro/include/berrymse-version.inc
PV = "${BERRYMSE_VERSION}"

inherit image

IMAGE_INSTALL = "\
    base-files \
    base-passwd \
    berrymse \
    busybox \
    busybox-udhcpc \
    ca-certificates \
    curl \
    dbus \
    dosfstools \
    dropbear \
    e2fsprogs-e2fsck \
    e2fsprogs-resize2fs \
    kernel-modules \
    libubootenv-bin \
    netbase \
    rauc \
    tzdata \
    util-linux-partx \
    wireless-regdb-static \
    wpa-supplicant \
    wpa-supplicant-passphrase \
"
IMAGE_INSTALL:append:rpi = " \
    iw \
    linux-firmware-rpidistro-bcm43430 \
    linux-firmware-rpidistro-bcm43436 \
    linux-firmware-rpidistro-bcm43436s \
    linux-firmware-rpidistro-bcm43455 \
    linux-firmware-rpidistro-bcm43456 \
    ${@bb.utils.contains('BBFILE_COLLECTIONS', 'multimedia-layer', '${BERRYMSE_LIBCAMERA}', '', d)} \
"
# rpicam-vid. The 32-bit Zero accesses the camera through the firmware instead.
BERRYMSE_LIBCAMERA = "libcamera-apps"
BERRYMSE_LIBCAMERA:raspberrypi0-wifi = ""

# The root file system is never written, so a package with a script that must run at first boot is an error.
IMAGE_FEATURES = "read-only-rootfs"

# The time of the last commit. The device's clock starts no earlier, because certificates are newer than
# OpenEmbedded's default of 2018.
REPRODUCIBLE_TIMESTAMP_ROOTFS = "${@berrymse_time(d)}"

def berrymse_time(d):
    import subprocess
    tree = d.getVar('BERRYMSE_TREE')
    asked = subprocess.run(['git', '-C', tree, 'log', '-1', '--format=%ct'], capture_output=True, text=True)
    if asked.returncode == 0:
        return asked.stdout.strip()
    # If this is not a clone, or another user owns it: the time of Cargo.lock.
    return str(int(os.stat(os.path.join(tree, 'Cargo.lock')).st_mtime))

BERRYMSE_COMPATIBLE ?= "berrymse-${MACHINE}"

python () {
    if not d.getVar('BERRYMSE_KEYRING'):
        raise bb.parse.SkipRecipe("no keyring for updates: set BERRYMSE_KEYRING (docs/yocto.md, Use your own keys), "
                                  "or add kas/development-keys.yml")
}

# Adds the files in appliance/ to the root file system, replacing those of packages.
ROOTFS_POSTPROCESS_COMMAND += "berrymse_appliance berrymse_boot_files"
berrymse_appliance[doc] = "Adds the files in appliance/ to the root file system, replacing those of packages"
berrymse_appliance() {
    # OpenEmbedded's init scripts are not used: the appliance has its own inittab and rcS.
    rm -rf ${IMAGE_ROOTFS}${sysconfdir}/init.d ${IMAGE_ROOTFS}${sysconfdir}/rc?.d
    # The bus is only for berrymse and RAUC, with the policy in appliance/root/etc/dbus-1.
    rm -rf ${IMAGE_ROOTFS}${sysconfdir}/dbus-1 ${IMAGE_ROOTFS}${datadir}/dbus-1
    # Links whose targets do not exist at build time. The files are written to the overlay of /etc instead.
    rm -f ${IMAGE_ROOTFS}${sysconfdir}/resolv.conf ${IMAGE_ROOTFS}${sysconfdir}/fstab
    install -d ${IMAGE_ROOTFS}${sysconfdir}/network

    # Uses a temporary directory, because the files belong to the user who cloned the repository.
    appliance=${WORKDIR}/appliance
    rm -rf $appliance
    ${BERRYMSE_TREE}/appliance/assemble root $appliance ${BERRYMSE_COMPATIBLE} ${PV} ${BERRYMSE_KEYRING}
    chown -R root:root $appliance
    chmod -R u=rwX,go=rX $appliance
    for folder in proc sys tmp root var; do
        if [ -d ${IMAGE_ROOTFS}/$folder ]; then
            rmdir $appliance/$folder
        fi
    done
    cp -a $appliance/. ${IMAGE_ROOTFS}
    if [ -n "${BERRYMSE_DEVELOPMENT_KEYS}" ]; then
        touch ${IMAGE_ROOTFS}${sysconfdir}/berrymse-development
    fi

    # The executable comes last, so that the files before it do not move and updates need not fetch them.
    echo "${bindir}/berrymse -1" | sed 's|^/||' > ${WORKDIR}/squashfs.sort
}

# After depmod, which runs last in do_rootfs.
IMAGE_PREPROCESS_COMMAND += "berrymse_check"
berrymse_check[doc] = "Fails if a device would not work with this root file system"
berrymse_check() {
    ${BERRYMSE_TREE}/appliance/assemble check ${IMAGE_ROOTFS} ${BERRYMSE_PARTS}
}
# The board in appliance/raspberrypi/devices.tsv whose drivers must be present.
BERRYMSE_PARTS ?= ""
BERRYMSE_PARTS:raspberrypi0-wifi ?= "rpi0w"
BERRYMSE_PARTS:raspberrypi3-64 ?= "rpi0_2w_rpi3_64"
BERRYMSE_PARTS:raspberrypi4-64 ?= "rpi4_64"
BERRYMSE_PARTS:raspberrypi5 ?= "rpi5"
do_rootfs[file-checksums] += " \
    ${BERRYMSE_TREE}/appliance/assemble:True \
    ${BERRYMSE_TREE}/appliance/boot.cmd:True \
    ${BERRYMSE_TREE}/appliance/cmdline.txt:True \
    ${BERRYMSE_TREE}/appliance/config.txt:True \
    ${BERRYMSE_TREE}/appliance/layout:True \
    ${BERRYMSE_TREE}/appliance/raspberrypi:True \
    ${BERRYMSE_TREE}/appliance/root:True \
"
# For the boot files.
do_rootfs[depends] += " \
    u-boot-tools-native:do_populate_sysroot \
    virtual/bootloader:do_deploy \
    ${@'rpi-bootfiles:do_deploy virtual/kernel:do_deploy' if 'rpi' in d.getVar('OVERRIDES').split(':') else ''} \
"
do_rootfs[depends] += "${@'berrymse-development-keys:do_keys' if d.getVar('BERRYMSE_DEVELOPMENT_KEYS') else ''}"
EXTRA_IMAGECMD:squashfs-zst = "-Xcompression-level 19 -b 128k -no-xattrs -no-progress -sort ${WORKDIR}/squashfs.sort"
