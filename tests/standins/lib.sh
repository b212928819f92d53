# What the stand-ins' `make.sh` share. Each is run as `sh -eu make.sh` with
#   OUT     the directory that gets the layers, NN-name.tar, lowest first
#   HERE    its own directory
#   WORK    a directory for whatever it needs on the way
#   FROM    the layers (NN-name.tar.gz) of the stand-in that it is built on, if any
#   SUITE, MIRROR   where the packages come from

export SOURCE_DATE_EPOCH=1700000000 LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

# unpack DIRECTORY PACKAGE...: unpacks packages and all that they depend on; runs none of their
# scripts.
unpack() {
    directory=$1
    shift
    debian extract "$directory" "$@"
    rm -rf "$directory"/var/lib/apt "$directory"/var/cache/apt "$directory"/var/log/*
    for path in usr/share/doc usr/share/man usr/share/locale usr/share/info usr/share/lintian \
        usr/share/perl usr/share/perl5 usr/lib/x86_64-linux-gnu/perl usr/lib/x86_64-linux-gnu/perl-base; do
        rm -rf "${directory:?}/$path"
    done
}

# debian VARIANT DIRECTORY PACKAGE...: what mmdebstrap makes of it.
debian() {
    variant=$1 target=$2
    shift 2
    include=$(echo "$*" | tr ' ' ,)
    mmdebstrap --quiet --variant="$variant" ${include:+--include="$include"} \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
        "$SUITE" "$target" "deb $MIRROR $SUITE main"
}

# pack DIRECTORY NAME: makes a directory a layer.
pack() {
    rm -rf "$1"/dev
    mkdir -p "$1"/dev "$1"/proc "$1"/sys "$1"/tmp
    chmod 1777 "$1"/tmp
    tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --clamp-mtime --numeric-owner --xattrs \
        -C "$1" -cf "$OUT/$2.tar" .
}

# pack_only DIRECTORY NAME: makes a directory a layer as it is.
pack_only() {
    tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --clamp-mtime --numeric-owner --xattrs \
        -C "$1" -cf "$OUT/$2.tar" .
}

# busybox_links DIRECTORY: a shell and its tools where nothing else is.
busybox_links() {
    [ -e "$1/bin/busybox" ] || { mkdir -p "$1/bin"; mv "$1/usr/bin/busybox" "$1/bin/busybox"; }
    for applet in $("$1/bin/busybox" --list); do
        [ -e "$1/bin/$applet" ] || [ -L "$1/bin/$applet" ] || [ -e "$1/usr/bin/$applet" ] \
            || ln -s busybox "$1/bin/$applet"
    done
}

# accounts DIRECTORY: the users that every image has.
accounts() {
    mkdir -p "$1/etc" "$1/root"
    chmod 700 "$1/root"
    cat > "$1/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
    cat > "$1/etc/group" <<'END'
root:x:0:
www-data:x:33:
nogroup:x:65534:
END
}

# certificates UNPACKED FILE: the bundle that ca-certificates' script would make.
certificates() {
    mkdir -p "$(dirname "$2")"
    cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$2"
}

# online DIRECTORY COMMAND...: runs a command in a root file system with the machine's network, to
# fetch what the image is to carry.
online() {
    root=$1
    shift
    mkdir -p "$root/etc" "$root/dev" "$root/proc" "$root/tmp"
    cp --remove-destination "$(realpath /etc/resolv.conf)" "$root/etc/resolv.conf"
    cp /etc/ssl/certs/ca-certificates.crt "$root/tmp/ca.crt"
    unshare --mount --pid --fork --kill-child sh -euc '
        root=$1
        shift
        mount --rbind /dev "$root/dev"
        mount -t proc proc "$root/proc"
        exec chroot "$root" env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
            DEBIAN_FRONTEND=noninteractive SSL_CERT_FILE=/tmp/ca.crt PIP_CERT=/tmp/ca.crt \
            NODE_EXTRA_CA_CERTS=/tmp/ca.crt "$@"
    ' sh "$root" "$@"
    rm -f "$root/etc/resolv.conf" "$root/tmp/ca.crt"
}

# repository DIRECTORY: an index for a directory of .deb files, as apt reads it.
repository() {
    (
        cd "$1"
        for deb in *.deb; do
            dpkg-deb --field "$deb"
            echo "Filename: ./$deb"
            echo "Size: $(stat -c %s "$deb")"
            echo "SHA256: $(sha256sum "$deb" | cut -d' ' -f1)"
            echo
        done > Packages
    )
}

# local_packages BASE LAYER PACKAGE...: puts packages, and what they need on top of BASE, into
# LAYER/srv/debs, and makes that apt's only source.
local_packages() {
    base=$1 layer=$2
    shift 2
    printf 'deb %s %s main\n' "$MIRROR" "$SUITE" > "$base/etc/apt/sources.list"
    online "$base" apt-get -qq -o APT::Install-Recommends=false update
    online "$base" apt-get -qq -o APT::Install-Recommends=false install --download-only -y "$@"
    mkdir -p "$layer/srv/debs" "$layer/etc/apt/apt.conf.d"
    mv "$base"/var/cache/apt/archives/*.deb "$layer/srv/debs"
    repository "$layer/srv/debs"
    echo 'deb [trusted=yes] file:/srv/debs ./' > "$layer/etc/apt/sources.list"
    # What is recommended is not carried; dpkg need not wait for the disk.
    echo 'APT::Install-Recommends "false";' > "$layer/etc/apt/apt.conf.d/90local"
}
