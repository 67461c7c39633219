# The appliance streams bundles but does not create any, and the card has no GPT. RAUC's configuration and the
# script that marks a slot good are in appliance/root.
PACKAGECONFIG:berrymse-os = "service network streaming nocreate"
RRECOMMENDS:${PN}:remove:berrymse-os = "${PN}-mark-good squashfs-tools virtual-rauc-conf"
