# shellcheck shell=bash disable=SC2034
# Variables and functions for post-build.sh and post-image.sh. To be sourced with board set.
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../..")
# shellcheck disable=SC2154
compatible=berrymse-${board//_/-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml" | head -n 1)
export PATH=$HOST_DIR/bin:$HOST_DIR/sbin:$PATH LC_ALL=C TZ=UTC

# setting NAME: prints a setting from Buildroot's configuration.
setting() { sed -n "s/^BR2_PACKAGE_BERRYMSE_$1=\"\(.*\)\"\$/\1/p" "$BR2_CONFIG"; }

# Sets keyring, certificate and key; generates them and sets development if none are configured.
keys() {
    development='' keyring=$(setting KEYRING) certificate=$(setting CERTIFICATE) key=$(setting KEY)
    [ -z "$keyring" ] || return 0
    development=yes
    "$repository/appliance/assemble" keys "$BASE_DIR/keys"
    keyring=$BASE_DIR/keys/ca.pem certificate=$BASE_DIR/keys/signer.pem key=$BASE_DIR/keys/signer.key
}
