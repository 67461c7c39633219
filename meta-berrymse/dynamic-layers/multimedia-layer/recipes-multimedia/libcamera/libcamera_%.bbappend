# These images have mdev and no udevd, and libcamera with udev finds no camera without it. Without udev it reads /sys
# at its start; rpicam-vid is started again as long as there is no picture, so a camera that comes later is found.
DEPENDS:remove:berrymse-os = "udev"
EXTRA_OEMESON:append:berrymse-os = " -Dudev=disabled"
