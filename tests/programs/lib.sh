# What the programs' `source.sh` share. Each is run as `sh -eu source.sh` with
#   OUT     the directory that gets the source, as a build context
#   WORK    a directory for whatever it needs on the way
#   CARGO   the cargo that builds the tests
#   SUITE, MIRROR   where Debian's packages come from

# debian_apt ARGUMENT...: apt-get of that Debian, whatever the machine's own; it writes to the
# directory where it is called, and checks signatures by the keys of debian-archive-keyring.
debian_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$WORK/apt/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State="$WORK/apt/state" -o Dir::State::Status=/dev/null \
        -o Dir::Cache="$WORK/apt/cache" -o APT::Sandbox::User=root "$@"
}

# debian_update TYPE: fetches the lists of packages (`deb`) or of sources (`deb-src`).
debian_update() {
    mkdir -p "$WORK/apt/state/lists/partial" "$WORK/apt/cache/archives/partial"
    echo "$1 [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR $SUITE main" \
        > "$WORK/apt/sources.list"
    debian_apt update
}
