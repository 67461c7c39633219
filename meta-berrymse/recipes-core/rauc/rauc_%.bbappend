# Streams bundles, makes none; the card has no GPT. Its configuration and who marks a slot good are in
# appliance/root.
PACKAGECONFIG:berrymse-os = "service network streaming nocreate"
RRECOMMENDS:${PN}:remove:berrymse-os = "${PN}-mark-good squashfs-tools virtual-rauc-conf"
