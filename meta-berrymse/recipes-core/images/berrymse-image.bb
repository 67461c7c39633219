SUMMARY = "BerryMSE's appliance: power on, it streams"
DESCRIPTION = "An SD card's image with two systems that are updated in turn, and what configures them: one file \
on its FAT partition. docs/appliance.md says what happens when it starts."
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
# rpicam-vid. A 32-bit Zero has its camera from the firmware.
BERRYMSE_LIBCAMERA = "libcamera-apps"
BERRYMSE_LIBCAMERA:raspberrypi0-wifi = ""

# A package whose script wants to run at the first start is an error: the root is never written.
IMAGE_FEATURES = "read-only-rootfs"

# No clock is before this; certificates are made later than 2018. The time of the last change.
REPRODUCIBLE_TIMESTAMP_ROOTFS = "${@berrymse_time(d)}"

def berrymse_time(d):
    import subprocess
    tree = d.getVar('BERRYMSE_TREE')
    asked = subprocess.run(['git', '-C', tree, 'log', '-1', '--format=%ct'], capture_output=True, text=True)
    if asked.returncode == 0:
        return asked.stdout.strip()
    # No clone (a release's archive, or another user's folder): its newest file's time.
    return str(int(os.stat(os.path.join(tree, 'Cargo.lock')).st_mtime))

BERRYMSE_COMPATIBLE ?= "berrymse-${MACHINE}"

python () {
    if not d.getVar('BERRYMSE_KEYRING'):
        raise bb.parse.SkipRecipe("whose updates is it to install? Set BERRYMSE_KEYRING (docs/yocto.md, Keys), "
                                  "or add kas/development-keys.yml")
}

# What the repository's folder appliance/ has for the root file system, put over what the packages have.
ROOTFS_POSTPROCESS_COMMAND += "berrymse_appliance"
berrymse_appliance[doc] = "Puts what the repository's folder appliance/ has over what the packages have"
berrymse_appliance() {
    # OpenEmbedded's own start scripts: inittab and rcS are the appliance's.
    rm -rf ${IMAGE_ROOTFS}${sysconfdir}/init.d ${IMAGE_ROOTFS}${sysconfdir}/rc?.d
    # One user of the bus, one policy: appliance/root/etc/dbus-1.
    rm -rf ${IMAGE_ROOTFS}${sysconfdir}/dbus-1 ${IMAGE_ROOTFS}${datadir}/dbus-1
    # Links to where nothing is before the start: what is there is written through /etc's overlay.
    rm -f ${IMAGE_ROOTFS}${sysconfdir}/resolv.conf ${IMAGE_ROOTFS}${sysconfdir}/fstab
    install -d ${IMAGE_ROOTFS}${sysconfdir}/network

    # Through a folder of its own: the files' owners are whoever has cloned the repository.
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

    # The executable comes last: what is before it stays where it is, and an update need not fetch it.
    echo "${bindir}/berrymse -1" | sed 's|^/||' > ${WORKDIR}/squashfs.sort
}

# After depmod, which runs last in do_rootfs.
IMAGE_PREPROCESS_COMMAND += "berrymse_check"
berrymse_check[doc] = "Fails if a device could not work with this root file system"
berrymse_check() {
    ${BERRYMSE_TREE}/appliance/assemble check ${IMAGE_ROOTFS} ${BERRYMSE_PARTS}
}
# Which drivers have to be there: a board of appliance/raspberrypi/devices.tsv.
BERRYMSE_PARTS ?= ""
BERRYMSE_PARTS:raspberrypi0-wifi ?= "rpi0w"
BERRYMSE_PARTS:raspberrypi3-64 ?= "rpi0_2w_rpi3_64"
BERRYMSE_PARTS:raspberrypi4-64 ?= "rpi4_64"
do_rootfs[file-checksums] += " \
    ${BERRYMSE_TREE}/appliance/assemble:True \
    ${BERRYMSE_TREE}/appliance/layout:True \
    ${BERRYMSE_TREE}/appliance/root:True \
"
do_rootfs[depends] += "${@'berrymse-development-keys:do_keys' if d.getVar('BERRYMSE_DEVELOPMENT_KEYS') else ''}"
EXTRA_IMAGECMD:squashfs-zst = "-Xcompression-level 19 -b 128k -no-xattrs -no-progress -sort ${WORKDIR}/squashfs.sort"
