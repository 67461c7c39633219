FILESEXTRAPATHS:prepend:berrymse-os := "${THISDIR}/files:"
SRC_URI:append:berrymse-os = " file://berrymse.cfg"
