# shellcheck shell=bash
# What the scripts here share: installing what is missing, and saying what is done.
#
# Debian packages are installed with apt-get, as root or through sudo. Where neither is there, the
# script ends with the one command that is to be run.

say() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf '\n%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# install PACKAGE...: those of the packages that are not there yet.
install_packages() {
    local missing=() package
    if ! has dpkg-query; then
        echo "not Debian: taking it that what these packages bring is there: $*" >&2
        return 0
    fi
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    has apt-get || die "these Debian packages are needed, and there is no apt-get: ${missing[*]}"
    # This machine's apt, whatever ci/debian.sh has said.
    local as_root=(env -u APT_CONFIG)
    if [ "$(id -u)" != 0 ]; then
        has sudo || die "run as root: apt-get install ${missing[*]}"
        as_root+=(sudo)
    fi
    say "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get -q update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-remove --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get could not install ${missing[*]} (without removing anything)"
    fi
    rm -f "$log"
}

# The least Rust that this project builds with: rust-version in Cargo.toml.
rust_needed() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }

# at_least HAVE NEEDED: versions.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Version of a cargo, or nothing (where it is not there).
version_of() { { "$1" --version 2>/dev/null || true; } | sed -n 's/^[a-z]* \([0-9.]*\).*/\1/p'; }

# A Rust that is new enough: the one in PATH, else rustup's, else Debian's cargo-web and rustc-web
# (which bookworm-security keeps new for its browsers). Sets CARGO; RUSTC where it has another name.
need_rust() {
    local needed have
    needed=$(rust_needed)
    install_packages gcc libc6-dev
    for CARGO in cargo "$HOME/.cargo/bin/cargo"; do
        have=$(version_of "$CARGO")
        if [ -n "$have" ] && at_least "$have" "$needed"; then
            export CARGO
            return
        fi
    done
    if has rustup && rustup toolchain install stable --profile minimal -c clippy -c rustfmt >&2; then
        CARGO="rustup run stable cargo"
        export CARGO
        return
    fi
    install_packages cargo-web rustc-web ca-certificates
    CARGO=$(debian_rust cargo)
    RUSTC=$(debian_rust rustc)
    have=$(version_of "$CARGO")
    [ -n "$have" ] || die "Debian's cargo-web does not start"
    at_least "$have" "$needed" ||
        die "Rust $needed or newer is needed, and Debian has $have: install rustup (https://rustup.rs)"
    export CARGO RUSTC
}

# Where Debian's *-web packages put a program.
debian_rust() {
    local at
    at=$(dpkg -L "$1-web" | grep -E "/bin/$1(-web)?\$" | head -n 1)
    [ -n "$at" ] || die "the package $1-web has no $1"
    printf '%s' "$at"
}

cargo_() { $CARGO "$@"; }

# need_tool NAME VERSION: a program from crates.io, of exactly this version, in target/tools. Prints
# where it is.
need_tool() {
    local tools=${CARGO_TARGET_DIR:-target}/tools
    if ! grep -qs "\"$1 $2 " "$tools/.crates2.json"; then
        say "building $1 $2 (once)"
        cargo_ install --quiet --locked --root "$tools" --version "$2" "$1" >&2 ||
            die "$1 $2 could not be built"
    fi
    printf '%s' "$tools/bin/$1"
}

# Programs from PyPI (ci/python-tools.txt), in a folder of their own. Sets python_tools: where their bin/ is.
need_python_tools() {
    python_tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools/python
    ! cmp -s ci/python-tools.txt "$python_tools/done" || return 0
    install_packages python3 python3-venv
    say "installing $(sed -n 's/^\([a-z-]*\)==\([^ ]*\).*/\1 \2/p' ci/python-tools.txt | paste -sd ,) (once)"
    rm -rf "$python_tools"
    { /usr/bin/python3 -m venv "$python_tools" &&
        "$python_tools/bin/pip" install --quiet --no-deps --require-hashes --only-binary :all: \
            --disable-pip-version-check -r ci/python-tools.txt; } >&2 ||
        die "the programs in ci/python-tools.txt could not be installed"
    cp ci/python-tools.txt "$python_tools/done"
}

# Sets CARGO_DENY.
need_cargo_deny() {
    CARGO_DENY=$(need_tool cargo-deny 0.20.2)
    export CARGO_DENY
}

# Node.js with npm: what is there, whoever packaged it (NodeSource's nodejs brings an npm of its own and
# conflicts with Debian's package of that name), else Debian's.
need_node() {
    has node || install_packages nodejs npm
    has npm || install_packages npm
}
