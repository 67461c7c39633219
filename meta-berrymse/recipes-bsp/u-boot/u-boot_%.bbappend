FILESEXTRAPATHS:prepend:berrymse-os := "${THISDIR}/files:"
SRC_URI:append:berrymse-os = " file://berrymse.cfg"
SRC_URI:append:berrymse-os:qemuarm64 = " file://berrymse-qemuarm64.cfg"
SRC_URI:append:berrymse-os:rpi = " file://berrymse-rpi.cfg"
