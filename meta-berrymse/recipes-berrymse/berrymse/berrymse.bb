SUMMARY = "Stream H.264 from a camera to any browser with the lowest possible latency"
DESCRIPTION = "Wraps the H.264 that a camera's hardware has encoded in MP4 fragments and sends them over a \
WebSocket to the page that it serves. Nothing is transcoded."
SECTION = "multimedia"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "\
    file://LICENSE-MIT;md5=0d3b5823ca663b030dda0fb2c7f9f721 \
    file://LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
"

require conf/distro/include/berrymse-version.inc
require berrymse-crates.inc
PV = "${BERRYMSE_VERSION}"

# From the repository that contains this layer: only the files that Cargo needs, to avoid unnecessary
# rebuilds. The V4L2 bindings are committed in bindings/, so neither libclang nor recent kernel headers are
# required (docs/yocto.md).
FILESEXTRAPATHS:prepend := "${BERRYMSE_TREE}:${BERRYMSE_TREE}/appliance/systemd:"
SRC_URI += "\
    file://Cargo.toml \
    file://Cargo.lock \
    file://LICENSE-MIT \
    file://LICENSE-APACHE \
    file://appliance/berrymse.toml \
    file://benches \
    file://bindings \
    file://src \
    file://web \
    file://berrymse.init \
    file://berrymse.service \
"
S = "${UNPACKDIR}"

inherit cargo systemd update-rc.d useradd

# OpenEmbedded strips the executable and keeps the debug information in berrymse-dbg.
export CARGO_PROFILE_RELEASE_STRIP = "none"

do_install:append:class-target() {
    # Not for the appliance, which has its configuration on the FAT partition and its inittab in appliance/root.
    if ${@bb.utils.contains_any('DISTRO_FEATURES', 'systemd sysvinit', 'true', 'false', d)}; then
        install -D -m 0640 ${S}/appliance/berrymse.toml ${D}${sysconfdir}/berrymse.toml
        chown root:berrymse ${D}${sysconfdir}/berrymse.toml
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -D -m 0644 ${S}/berrymse.service ${D}${systemd_system_unitdir}/berrymse.service
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -D -m 0755 ${S}/berrymse.init ${D}${sysconfdir}/init.d/berrymse
    fi
}

CONFFILES:${PN} = "${@bb.utils.contains_any('DISTRO_FEATURES', 'systemd sysvinit', '${sysconfdir}/berrymse.toml', '', d)}"

SYSTEMD_SERVICE:${PN} = "berrymse.service"
INITSCRIPT_NAME = "berrymse"
INITSCRIPT_PARAMS = "defaults 80 20"

# A separate user for the server; cameras belong to the group video.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system video"
USERADD_PARAM:${PN} = "--system --user-group --groups video --no-create-home --home-dir ${localstatedir}/lib/berrymse \
    --shell /bin/false --comment BerryMSE berrymse"

# The source "rpicam" needs rpicam-vid from meta-openembedded's meta-multimedia. curl fetches the update
# announcement over TLS.
RRECOMMENDS:${PN}:append:class-target = " ca-certificates tzdata-core"
RSUGGESTS:${PN} = "curl"

BBCLASSEXTEND = "native"
