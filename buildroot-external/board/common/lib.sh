# shellcheck shell=bash disable=SC2034
# What both scripts of an image need to know. To be sourced; board is set.
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../..")
# shellcheck disable=SC2154
compatible=berrymse-${board//_/-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml" | head -n 1)
export PATH=$HOST_DIR/bin:$HOST_DIR/sbin:$PATH LC_ALL=C TZ=UTC

# setting NAME: out of Buildroot's configuration.
setting() { sed -n "s/^BR2_PACKAGE_BERRYMSE_$1=\"\(.*\)\"\$/\1/p" "$BR2_CONFIG"; }

# Sets keyring, certificate, key, and development where they are made up.
keys() {
    development='' keyring=$(setting KEYRING) certificate=$(setting CERTIFICATE) key=$(setting KEY)
    [ -z "$keyring" ] || return 0
    development=yes
    "$repository/appliance/assemble" keys "$BASE_DIR/keys"
    keyring=$BASE_DIR/keys/ca.pem certificate=$BASE_DIR/keys/signer.pem key=$BASE_DIR/keys/signer.key
}
