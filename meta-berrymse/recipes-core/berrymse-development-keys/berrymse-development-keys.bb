SUMMARY = "Keys for development: they sign updates of images that are built here"
DESCRIPTION = "An authority and a signer, made once in BERRYMSE_DEVELOPMENT_KEYS: kas/development-keys.yml."
LICENSE = "MIT"
DEPENDS = "openssl-native"

inherit nopackages

INHIBIT_DEFAULT_DEPS = "1"

# Every build says it. The keys stay: an image takes the updates that are built after it.
do_keys() {
    if [ -z "${BERRYMSE_DEVELOPMENT_KEYS}" ]; then
        bbfatal "BERRYMSE_DEVELOPMENT_KEYS is not set: kas/development-keys.yml sets it"
    fi
    ${BERRYMSE_TREE}/appliance/assemble keys ${BERRYMSE_DEVELOPMENT_KEYS}
    bbwarn "DEVELOPMENT KEYS: whoever has ${BERRYMSE_DEVELOPMENT_KEYS} can update every device with this image"
}
do_keys[doc] = "Makes an authority and a signer, unless there are some"
do_keys[nostamp] = "1"
do_keys[depends] += "openssl-native:do_populate_sysroot"
addtask keys
