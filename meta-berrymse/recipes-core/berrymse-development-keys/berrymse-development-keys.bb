SUMMARY = "Development keys for signing updates of images built in this build directory"
DESCRIPTION = "A certificate authority and a signer, created once in BERRYMSE_DEVELOPMENT_KEYS \
(kas/development-keys.yml)."
LICENSE = "MIT"
DEPENDS = "openssl-native"

inherit nopackages

INHIBIT_DEFAULT_DEPS = "1"

# Every build prints the warning. The keys are kept, so that an image accepts updates from later builds.
do_keys() {
    if [ -z "${BERRYMSE_DEVELOPMENT_KEYS}" ]; then
        bbfatal "BERRYMSE_DEVELOPMENT_KEYS is not set: kas/development-keys.yml sets it"
    fi
    ${BERRYMSE_TREE}/appliance/assemble keys ${BERRYMSE_DEVELOPMENT_KEYS}
    bbwarn "DEVELOPMENT KEYS: anyone who has ${BERRYMSE_DEVELOPMENT_KEYS} can sign updates for every device with this image"
}
do_keys[doc] = "Creates a certificate authority and a signer if none exist"
do_keys[nostamp] = "1"
do_keys[depends] += "openssl-native:do_populate_sysroot"
addtask keys
