FILESEXTRAPATHS:prepend:berrymse-os := "${THISDIR}/../../../../recipes-kernel/linux/files:${THISDIR}/files:"
SRC_URI:append:berrymse-os = " file://berrymse.cfg file://berrymse-rpi.cfg"
SRC_URI:append:berrymse-os:raspberrypi5 = " file://berrymse-rpi5.cfg"
