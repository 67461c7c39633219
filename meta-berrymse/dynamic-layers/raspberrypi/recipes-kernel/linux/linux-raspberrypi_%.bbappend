FILESEXTRAPATHS:prepend:berrymse-os := "${THISDIR}/../../../../recipes-kernel/linux/files:${THISDIR}/files:"
SRC_URI:append:berrymse-os = " file://berrymse.cfg file://berrymse-rpi.cfg"
