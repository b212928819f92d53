# esbuild, by way of the package that Debian's other Go programs are compiled with.
. "$HERE/../lib.sh"

cd "$WORK"
debian_update deb
debian_apt download golang-github-evanw-esbuild-dev
dpkg-deb -x golang-github-evanw-esbuild-dev_*.deb unpacked
cp -r unpacked/usr/share/gocode/src "$OUT/src"
