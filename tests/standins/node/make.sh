. "$HERE/../lib.sh"

mkdir "$WORK/base" "$WORK/debs" "$WORK/node" "$WORK/work" "$WORK/root" "$WORK/packages"
for layer in "$FROM"/*.tar.gz; do tar -xzf "$layer" -C "$WORK/base"; done
printf 'deb %s %s main\n' "$MIRROR" "$SUITE" > "$WORK/base/etc/apt/sources.list"
online "$WORK/base" apt-get -qq update
online "$WORK/base" apt-get -qq -o APT::Install-Recommends=false install --download-only -y \
    nodejs npm node-marked node-ejs node-js-yaml
mv "$WORK"/base/var/cache/apt/archives/*.deb "$WORK/debs"

# Node and npm are unpacked on top of the base; what that adds is the layer. Most of the four
# hundred packages are for what npm can do besides, and go again. Debian keeps parts of Node itself
# in packages, too (acorn to undici), and some packages do not say what they need (the rest).
unshare --mount sh -euc '
    . "$HERE/../lib.sh"
    root=$WORK/root
    mount -t overlay overlay \
        -o "lowerdir=$WORK/base,upperdir=$WORK/node,workdir=$WORK/work" "$root"
    for deb in "$WORK"/debs/node*.deb "$WORK"/debs/npm_*.deb "$WORK"/debs/lib*.deb; do
        case $deb in
            */*-dev_* | */libpython*) ;;
            *) dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root" ;;
        esac
    done
    /usr/bin/python3 "$HERE/closure.py" "$root/usr/share/nodejs" npm marked ejs js-yaml \
        acorn acorn-walk cjs-module-lexer minimatch undici wcwidth.js defaults clone

    registry=http://npm.example/
    printf "%s = %s\n" cache /srv/npm prefix /usr/local registry $registry offline true \
        audit false fund false update-notifier false >> "$root/usr/share/nodejs/npm/npmrc"
    cp -r "$HERE/packages" "$root/tmp/packages"
    for module in marked ejs js-yaml argparse; do
        cp -rL "$root/usr/share/nodejs/$module" "$root/tmp/packages/$module"
    done
    mkdir "$root/tmp/blog"
    cp "$HERE/fill.js" "$root/tmp"
    online "$root" node /tmp/fill.js /tmp/packages $registry /tmp/blog
'
layer=$WORK/node
rm -rf "$layer"/srv/npm/_logs "$layer"/etc/resolv.conf "$layer"/tmp "$layer"/root "$layer"/proc \
    "$layer"/dev "$layer"/usr/share/doc "$layer"/usr/share/man
if find "$layer" -type c | grep .; then
    echo "Unpacking took away these files of the base, which a plain layer cannot say" >&2
    exit 1
fi
pack_only "$layer" 20-node

# nginx, as the base with Node needs it.
local_packages "$WORK/base" "$WORK/packages" nginx
pack_only "$WORK/packages" 30-packages
