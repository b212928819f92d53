# SQLite as its authors release it, by way of Debian's source package.
. "$HERE/../lib.sh"

cd "$WORK"
debian_update deb-src
debian_apt source --download-only sqlite3
tar -xf sqlite3_*.orig.tar.xz --strip-components=1 -C "$OUT"
rm -rf "$OUT"/test
