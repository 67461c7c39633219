# shellcheck shell=bash
# Downloads and unpacks Debian packages of other architectures and releases without installing them, with an
# apt configuration below target/debian that is independent of the system's. To be sourced after
# ci/lib/common.sh.

debian_home=$(realpath -m "${CARGO_TARGET_DIR:-target}")/debian

# debian RELEASE [ARCH]: makes apt use the given release (amd64, arm64 and armhf); dependencies are resolved for
# ARCH (default: amd64). PACKAGE/RELEASE-backports selects a newer version. The package lists are downloaded
# once a day.
debian() {
    local at=$debian_home/$1 architecture=${2:-amd64} keys=/usr/share/keyrings/debian-archive-keyring.gpg
    has apt-get || die "apt-get not found: it is needed to download Debian packages"
    [ -e "$keys" ] || install_packages debian-archive-keyring
    mkdir -p "$at"/{lists/partial,cache/archives/partial,none}
    : >"$at/status"
    cat >"$at/sources.list.new" <<END
deb [arch=amd64,arm64,armhf signed-by=$keys] http://deb.debian.org/debian $1 main
deb [arch=amd64,arm64 signed-by=$keys] http://deb.debian.org/debian $1-backports main
deb [arch=amd64,arm64 signed-by=$keys] http://deb.debian.org/debian-security $1-security main
END
    cmp -s "$at/sources.list.new" "$at/sources.list" || rm -f "$at/updated"
    mv "$at/sources.list.new" "$at/sources.list"
    cat >"$at/$architecture.conf" <<END
Dir::Etc::SourceList "$at/sources.list";
Dir::Etc::SourceParts "$at/none";
Dir::Etc::PreferencesParts "$at/none";
Dir::State "$at";
Dir::State::Lists "$at/lists";
Dir::State::status "$at/status";
Dir::Cache "$at/cache";
APT::Architecture "$architecture";
APT::Architectures "amd64,arm64,armhf";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
END
    export APT_CONFIG=$at/$architecture.conf
    [ -z "$(find "$at/updated" -mtime -1 2>/dev/null)" ] || return 0
    if apt-get -q update >"$at/log" 2>&1; then
        touch "$at/updated"
    elif [ -e "$at/updated" ]; then
        echo "failed to update the package lists of Debian $1: using the existing ones" >&2
    else
        tail -n 5 "$at/log" >&2
        die "failed to download the package lists of Debian $1"
    fi
}

# needed PACKAGE...: prints the given packages and all their dependencies.
needed() {
    apt-get -q install --simulate "$@" 2>"$debian_home/log" | sed -n 's/^Inst \([^ ]*\) .*/\1/p' | grep . || { tail -n 5 "$debian_home/log" >&2; die "apt-get did not find $*"; }
}

# unpack DIRECTORY PACKAGE[:ARCH]...: downloads the given packages, without dependencies, and
# unpacks them.
unpack() {
    local folder=$1 debs deb
    shift
    mkdir -p "$folder"
    debs=$(mktemp -d "$debian_home/debs.XXXXXX")
    (cd "$debs" && apt-get -q download "$@") >"$debian_home/log" 2>&1 ||
        { tail -n 5 "$debian_home/log" >&2; rm -r "$debs"; die "apt-get failed to download $*"; }
    for deb in "$debs"/*.deb; do
        dpkg-deb -x "$deb" "$folder"
    done
    rm -r "$debs"
}
