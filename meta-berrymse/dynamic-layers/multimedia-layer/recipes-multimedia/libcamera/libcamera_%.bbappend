# The images use mdev, and if libcamera is built with udev, it finds no camera unless udevd is running.
# Without udev support, it reads /sys when it starts. rpicam-vid is restarted until it delivers a picture, so
# a camera that appears later is found.
DEPENDS:remove:berrymse-os = "udev"
EXTRA_OEMESON:append:berrymse-os = " -Dudev=disabled"
