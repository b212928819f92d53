. "$HERE/../lib.sh"

mkdir "$WORK/base" "$WORK/node" "$WORK/tools" "$WORK/work" "$WORK/root" "$WORK/packages"
for layer in "$FROM"/*.tar.gz; do tar -xzf "$layer" -C "$WORK/base"; done
printf 'deb %s %s main\n' "$MIRROR" "$SUITE" > "$WORK/base/etc/apt/sources.list"
online "$WORK/base" apt-get -qq update

# on LOWER UPPER: goes on with the commands of standard input, which write what they change to UPPER.
on() {
    mkdir -p "$WORK/work/$(basename "$2")"
    { echo '. "$HERE/../lib.sh"'; cat; } > "$WORK/commands"
    unshare --mount sh -euc '
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$WORK/work/$(basename "$2")" \
            "$WORK/root"
        . "$WORK/commands"
    ' sh "$1" "$2"
}

# Node, installed on top of the base: what that changes is the layer.
on "$WORK/base" "$WORK/node" <<'END'
online "$WORK/root" apt-get -qq -o APT::Install-Recommends=false \
    -o Dpkg::Options::=--force-unsafe-io install -y nodejs
END

# Debian's npm brings four hundred packages. It is installed to one side, to get from its registry
# the npm that comes in one piece; and that one fills its cache by doing once, with the network,
# what the documents do later without.
on "$WORK/node:$WORK/base" "$WORK/tools" <<'END'
online "$WORK/root" apt-get -qq -o APT::Install-Recommends=false \
    -o Dpkg::Options::=--force-unsafe-io install -y npm
mkdir -p "$WORK/root/blog"
cp "$HERE/package.json" "$WORK/root/blog"
online "$WORK/root" sh -euc '
    npm install --prefix /npm --global --no-audit --no-fund npm@10
    export PATH=/npm/bin:$PATH npm_config_cache=/srv/npm npm_config_audit=false npm_config_fund=false
    export npm_config_update_notifier=false
    cd /blog
    npm install
    npm install --prefix /tmp/global --global hexo-cli
'
END

layer=$WORK/node
mkdir -p "$layer/usr/local/etc" "$layer/srv"
cp -a "$WORK/tools/npm/." "$layer/usr/local"
cp -a "$WORK/tools/srv/npm" "$layer/srv"
printf '%s = %s\n' cache /srv/npm offline true audit false fund false update-notifier false \
    > "$layer/usr/local/etc/npmrc"
rm -rf "$layer"/srv/npm/_logs "$layer"/var/lib/apt "$layer"/var/cache/apt "$layer"/var/log \
    "$layer"/etc/resolv.conf "$layer"/tmp "$layer"/usr/share/doc "$layer"/usr/share/man \
    "$layer"/usr/local/lib/node_modules/npm/docs "$layer"/usr/local/lib/node_modules/npm/man
if find "$layer" -type c | grep .; then
    echo "The installation took away these files of the base, which a plain layer cannot say" >&2
    exit 1
fi
pack_only "$layer" 20-node

# nginx, as the base with Node needs it.
cp -a "$layer/." "$WORK/base"
local_packages "$WORK/base" "$WORK/packages" nginx
pack_only "$WORK/packages" 30-packages
