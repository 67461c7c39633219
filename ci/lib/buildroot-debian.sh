# shellcheck shell=bash disable=SC2154
# For ci/image/buildroot on networks that can reach Debian's servers but not the upstream sites. Uses sources
# from Debian's source packages, Debian's cross compiler as the toolchain, and this machine's programs as
# Buildroot's host tools. To be sourced after ci/lib/common.sh and ci/lib/debian.sh; uses home, buildroot and
# tree.
#
# The image is not identical to the one built from upstream sources: see docs/buildroot.md.

# Prints Buildroot package, Debian source package and upstream version. A tarball with a hash that
# Buildroot lists is used as the download; any other tarball is unpacked and built instead of the upstream
# source.
debian_table() {
    cat <<'END'
busybox         busybox         1.37.0
ca-certificates ca-certificates 20250419
dbus            dbus            1.14.10
dosfstools      dosfstools      4.2
dropbear        dropbear        2025.89
e2fsprogs       e2fsprogs       1.47.2
expat           expat           2.8.2
iw              iw              6.17
json-glib       json-glib       1.10.8+ds
libcurl         curl            8.20.0
libffi          libffi          3.4.8
libglib2        glib2.0         2.84.4
libnl           libnl3          3.7.0
libopenssl      openssl         3.6.3
libubootenv     libubootenv     0.3.5
libxcrypt       libxcrypt       4.4.38
libyaml         libyaml         0.2.5
libzlib         zlib            1.3.dfsg+really1.3.1
linux           linux           6.12.107
pcre2           pcre2           10.46
rauc            rauc            1.15.2
squashfs        squashfs-tools  4.6.1
uboot           u-boot          2025.01
util-linux      util-linux      2.41.5
wpa_supplicant  wpa             2.10
zstd            libzstd         1.5.7+dfsg
END
}

# Host packages that are built normally, because they use only Buildroot's own files.
debian_keep="host-skeleton host-makedevs host-mkpasswd host-fakedate"

# debian_source_lists: makes apt use the source packages of several releases.
debian_source_lists() {
    local release keys=/usr/share/keyrings/debian-archive-keyring.gpg
    debian trixie
    for release in bookworm trixie trixie-backports forky sid; do
        echo "deb-src [signed-by=$keys] http://deb.debian.org/debian $release main"
    done >"$home/sources.list"
    for release in bookworm trixie; do
        echo "deb-src [signed-by=$keys] http://deb.debian.org/debian-security $release-security main"
    done >>"$home/sources.list"
    mkdir -p "$home/lists/partial"
    sed -e "s|^Dir::Etc::SourceList .*|Dir::Etc::SourceList \"$home/sources.list\";|" \
        -e "s|^Dir::State::Lists .*|Dir::State::Lists \"$home/lists\";|" "$APT_CONFIG" >"$home/apt.conf"
    export APT_CONFIG=$home/apt.conf
    [ -z "$(find "$home/lists/done" -mtime -1 2>/dev/null)" ] || return 0
    apt-get -q update >"$home/log" 2>&1 || { tail -n 5 "$home/log" >&2; die "failed to download the lists of Debian's source packages"; }
    touch "$home/lists/done"
}

# debian_tarball SOURCE UPSTREAM: downloads the tarball of an upstream version, from any Debian revision, and
# prints its path.
debian_tarball() {
    local version file sum url at=$home/sources
    mkdir -p "$at"
    for version in $(apt-cache showsrc --only-source "$1" 2>/dev/null | sed -n 's/^Version: //p' | sort -ruV); do
        case $version in "$2" | "$2-"* | *":$2-"* | "$2+"*) ;; *) continue ;; esac
        while read -r url file _ sum; do
            case $file in *.asc | *.debian.tar.* | *.dsc | *.orig-*.tar.*) continue ;; esac
            url=${url#\'} url=${url%\'}
            if [ ! -e "$at/$file" ]; then
                curl -sSf --retry 3 -o "$at/$file.new" "$url" 2>"$home/log" || continue
                mv "$at/$file.new" "$at/$file"
            fi
            sha256sum --quiet -c <<<"${sum#SHA256:}  $at/$file" >&2 || { rm "$at/$file"; continue; }
            echo "$at/$file"
            return
        done < <(apt-get -q source --print-uris "$1=$version" 2>/dev/null | grep "^'")
    done
    cat "$home/log" >&2
    die "failed to download Debian's source package of $1 $2"
}

# debian_sources OUT BOARD SETTINGS: downloads the sources, writes OUT/local.mk and changes the settings.
debian_sources() {
    local out=$1 board=$2 settings=$3 package source upstream tarball name dl sum
    dl=${BR2_DL_DIR:-$home/dl}
    export BR2_DL_DIR=$dl
    say "downloading Debian's source packages (once)"
    install_packages curl gcc-aarch64-linux-gnu
    grep -q '^BR2_aarch64=y' "$settings" || die "DEBIAN_SOURCES supports only 64-bit boards, because Debian's armhf requires ARMv7"
    mkdir -p "$home/src"
    debian_source_lists
    debian_toolchain
    : >"$out/local.mk"
    : >"$out/replaced.txt"
    while read -r package source upstream; do
        tarball=$(debian_tarball "$source" "$upstream")
        sum=$(sha256sum "$tarball" | cut -d ' ' -f 1)
        name=$(grep -hs "^sha256 *$sum" "$buildroot"/{package,boot,linux}/"$package"/*.hash "$buildroot"/linux/*/*.hash | awk '{ print $3; exit }') || true
        if [ -n "$name" ]; then
            mkdir -p "$dl/$package"
            cp -u "$tarball" "$dl/$package/$name"
            echo "$package $name: the upstream tarball, verified by its hash" >>"$out/replaced.txt"
            continue
        fi
        if [ ! -e "$home/src/$package/.unpacked" ] || [ "$(cat "$home/src/$package/.unpacked")" != "$tarball" ]; then
            rm -rf "$home/src/$package"
            mkdir -p "$home/src/$package"
            tar -xf "$tarball" --strip-components=1 -C "$home/src/$package"
            echo "$tarball" >"$home/src/$package/.unpacked"
        fi
        name=${package^^}
        name=${name//-/_}
        echo "${name}_OVERRIDE_SRCDIR = $home/src/$package" >>"$out/local.mk"
        # Buildroot does this when it applies patches (and after autoreconf). Without it, libtool links to
        # this machine's /usr/lib.
        [ -z "$(find "$home/src/$package" -name ltmain.sh)" ] || grep -qs '_AUTORECONF = YES' "$buildroot"/package/"$package"/*.mk ||
            echo "${name}_POST_RSYNC_HOOKS += LIBTOOL_PATCH_HOOK" >>"$out/local.mk"
        echo "$package: $upstream from Debian's source package $source" >>"$out/replaced.txt"
    done < <(debian_table)
    {
        # The compiled time zones from this machine's tzdata.
        echo "TZDATA_OVERRIDE_SRCDIR = /usr/share/zoneinfo"
        # Unlike release tarballs, these have no configure script.
        echo "EXPAT_SUBDIR = expat"
        printf '%s_AUTORECONF = YES\n' EXPAT LIBFFI LIBXCRYPT LIBYAML
    } >>"$out/local.mk"
    sed -i '/^BR2_TOOLCHAIN_EXTERNAL_BOOTLIN/d' "$settings"
    cat >>"$settings" <<END
BR2_PACKAGE_OVERRIDE_FILE="$out/local.mk"
BR2_TOOLCHAIN_EXTERNAL_CUSTOM=y
BR2_TOOLCHAIN_EXTERNAL_PREINSTALLED=y
BR2_TOOLCHAIN_EXTERNAL_PATH="$home/toolchain/usr"
BR2_TOOLCHAIN_EXTERNAL_CUSTOM_PREFIX="aarch64-linux-gnu"
BR2_TOOLCHAIN_EXTERNAL_GCC_12=y
BR2_TOOLCHAIN_EXTERNAL_HEADERS_6_1=y
BR2_TOOLCHAIN_EXTERNAL_CUSTOM_GLIBC=y
# BR2_TOOLCHAIN_EXTERNAL_INET_RPC is not set
BR2_TOOLCHAIN_EXTERNAL_CXX=y
BR2_TOOLCHAIN_EXTERNAL_OPENMP=y
END
    # Debian has neither the Raspberry Pi's kernel nor its firmware. The configuration for QEMU includes the
    # mainline drivers for it.
    if [ "$board" != qemu_aarch64 ]; then
        sed -i -E '/^BR2_LINUX_KERNEL_(DEFCONFIG|CONFIG_FRAGMENT_FILES|INTREE_DTS_NAME|USE_DEFCONFIG)=/d
            /^BR2_PACKAGE_(RPI_FIRMWARE|BRCMFMAC_SDIO_FIRMWARE_RPI|LIBCAMERA|LIBCAMERA_APPS|WIRELESS_REGDB)[A-Z0-9_]*=/d' "$settings"
        cat >>"$settings" <<END
BR2_LINUX_KERNEL_USE_CUSTOM_CONFIG=y
BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE="$tree/board/qemu_aarch64/linux.config"
BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES="$tree/board/common/linux.fragment"
BR2_LINUX_KERNEL_INTREE_DTS_NAME="broadcom/bcm2837-rpi-3-b broadcom/bcm2837-rpi-zero-2-w"
END
        echo "rpi-firmware, brcmfmac_sdio-firmware-rpi, libcamera, libcamera-apps, wireless-regdb: left out" >>"$out/replaced.txt"
    fi
}

# Unpacks Debian's cross compiler into a prefix that Buildroot uses as its sysroot.
debian_toolchain() {
    local at=$home/toolchain lib name deb
    [ ! -e "$at/.done" ] || return 0
    say "unpacking Debian's cross compiler as the toolchain (once)"
    rm -rf "$at"
    mkdir -p "$at/debs"
    (
        unset APT_CONFIG
        cd "$at/debs" || exit
        apt-get -q download gcc-aarch64-linux-gnu gcc-12-aarch64-linux-gnu g++-aarch64-linux-gnu g++-12-aarch64-linux-gnu \
            cpp-aarch64-linux-gnu cpp-12-aarch64-linux-gnu binutils-aarch64-linux-gnu libc6-dev-arm64-cross \
            libc6-arm64-cross linux-libc-dev-arm64-cross libgcc-12-dev-arm64-cross libstdc++-12-dev-arm64-cross \
            libgcc-s1-arm64-cross libstdc++6-arm64-cross libatomic1-arm64-cross libgomp1-arm64-cross \
            gcc-12-aarch64-linux-gnu-base libitm1-arm64-cross >"$home/log" 2>&1 ||
            { tail -n 5 "$home/log" >&2; die "failed to download Debian's cross compiler"; }
    )
    for deb in "$at"/debs/*.deb; do dpkg-deb -x "$deb" "$at"; done
    rm -r "$at/debs"
    # Converts the result to the layout of a sysroot, without links that point outside.
    lib=$at/usr/aarch64-linux-gnu
    mkdir -p "$lib/usr"
    mv "$lib/include" "$lib/usr"
    ln -s usr/include "$lib/include"
    sed -i "s|/usr/aarch64-linux-gnu/lib/||g" "$lib"/lib/lib{c,m}.so
    # Debian configures the compiler for the sysroot "/", which Buildroot rejects.
    for name in gcc g++ cpp; do
        rm "$at/usr/bin/aarch64-linux-gnu-$name"
        cat >"$at/usr/bin/aarch64-linux-gnu-$name" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
real=$here/$(basename "$0")-12
if [ "$*" = -v ]; then
    "$real" -v 2>&1 | sed "s|--with-sysroot=/ |--with-sysroot=$here/../aarch64-linux-gnu |" >&2
    exit
fi
exec "$real" --sysroot="$here/../aarch64-linux-gnu" "$@"
END
        chmod +x "$at/usr/bin/aarch64-linux-gnu-$name"
    done
    touch "$at/.done"
}

# Sets CARGO, and sets rustc to a compiler that has the target's standard library (from rustup or
# ci/stage/cross).
debian_rustc() {
    need_rust
    CARGO=$(command -v "${CARGO%% *}")${CARGO#"${CARGO%% *}"}
    rustc=${RUSTC:-$(command -v rustc || true)}
    if [ -z "$rustc" ] || [ ! -d "$("$rustc" --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu" ]; then
        rustc=$debian_home/rust/rustc
        [ -e "$debian_home/rust/.done" ] || ci/stage/cross >&2
    fi
    "$rustc" --version >&2
}

# debian_tools OUT: links this machine's programs into Buildroot's host directory, and writes the stamps
# that mark its host packages as built.
debian_tools() {
    local out=$1 package folder step name file
    say "linking this machine's programs as Buildroot's host tools"
    install_packages autoconf autoconf-archive automake bison bmap-tools cmake device-tree-compiler dosfstools \
        e2fsprogs fakeroot fdisk flex gettext gperf kmod libglib2.0-dev libltdl-dev libssl-dev libtool m4 mtools openssl patchelf \
        pkgconf python3-cryptography python3-setuptools python3-venv squashfs-tools u-boot-tools zlib1g-dev zstd tzdata
    # ci/stage/cross provides a Rust compiler with the target's library, ci/image/appliance newer tools than
    # this machine's.
    debian_rustc
    [ -e "${home%/*}/appliance/tools/.done" ] || ci/image/appliance tools >&2
    if [ ! -e "$home/venv/.done" ]; then
        python3 -m venv "$home/venv"
        "$home/venv/bin/pip" install -q meson==1.10.1 ninja
        touch "$home/venv/.done"
    fi
    mkdir -p "$out"/host/{bin,sbin,lib,include,share/aclocal,share/zoneinfo} "$out/build"
    for package in $(make_ "$out" -s show-info | python3 -c '
import json, sys
for name, info in json.load(sys.stdin).items():
    if info["type"] == "host" and not info["virtual"]:
        print(name + ":" + info["stamp_dir"])'); do
        name=${package%%:*} folder=$out/${package#*:}
        [[ " $debian_keep " != *" $name "* ]] || continue
        mkdir -p "$folder"
        for step in downloaded rsynced extracted patched configured built host_installed installed; do
            [ -e "$folder/.stamp_$step" ] || touch "$folder/.stamp_$step"
        done
    done
    for name in aclocal autoconf autoheader autom4te automake autoreconf autoscan autoupdate libtoolize m4 bison yacc flex lex \
        cmake ctest gettext msgfmt msgmerge xgettext autopoint gperf tar lzip dtc patchelf fakeroot fakeroot-sysv faked faked-sysv \
        python3 bmaptool xz zstd lz4 depmod kmod getfattr setfacl c_rehash \
        glib-genmarshal glib-mkenums glib-compile-resources glib-compile-schemas gdbus-codegen; do
        file=$(command -v "$name" || true)
        [ -z "$file" ] || ln -sf "$(readlink -f "$(dirname "$file")")/$name" "$out/host/bin/$name"
    done
    ln -sf /usr/bin/python3 "$out/host/bin/python3"
    ln -sf "$(command -v depmod || echo /sbin/depmod)" "$out/host/sbin/depmod"
    for name in "$home"/venv/bin/{meson,ninja} \
        "${home%/*}"/appliance/tools/run/{mkimage,mkenvimage,dumpimage,mksquashfs,unsquashfs,mkfs.vfat,mkfs.ext4,mcopy,mmd,sfdisk,rauc,openssl}; do
        ln -sf "$name" "$out/host/bin/${name##*/}"
    done
    for name in cargo rustc; do
        printf '#!/bin/sh\nexec %s "$@"\n' "$([ $name = cargo ] && echo "$CARGO" || echo "$rustc")" >"$out/host/bin/$name"
        chmod +x "$out/host/bin/$name"
    done
    # Installs pkg-config as package/pkgconf does.
    # shellcheck disable=SC2016
    sed -e "s|@STAGING_SUBDIR@|aarch64-buildroot-linux-gnu/sysroot|g" -e 's|@STATIC@||' \
        -e 's|^PKGCONFDIR=.*|PKGCONFDIR=$(dirname "$(readlink -f "$0")")|' \
        "$buildroot/package/pkgconf/pkg-config.in" >"$out/host/bin/pkg-config"
    # Buildroot's pkgconf prepends the sysroot only to these variables; this machine's prepends it to all.
    rm -f "$out/host/bin/pkgconf"
    cat >"$out/host/bin/pkgconf" <<END
#!/bin/sh
case " \$*" in
    *" --variable=g_ir_"* | *" --variable=includedir"* | *" --variable=libdir"* | *" --variable=mapdir"* | *" --variable=sdkdir"*) ;;
    *" --variable="*) export PKG_CONFIG_SYSROOT_DIR=/ ;;
esac
exec $(command -v pkgconf) "\$@"
END
    chmod +x "$out/host/bin/pkgconf"
    chmod +x "$out/host/bin/pkg-config"
    # Debian's tzdata contains links here.
    [ -e "$out/host/share/zoneinfo/posix/Etc/UTC" ] || cp -rL /usr/share/zoneinfo/posix "$out/host/share/zoneinfo"
}
