. "$HERE/../lib.sh"

root=$WORK/root
unpack "$root" golang-go golang-golang-x-net-dev busybox-static bash
# The compiler's own packages and the tests are needed by nobody here.
for go in "$root"/usr/lib/go-1.* "$root"/usr/share/go-1.*; do
    rm -rf "$go"/pkg/linux_amd64/cmd "$go"/src/cmd "$go"/test "$go"/api "$go"/doc
    find "$go" -name testdata -prune -exec rm -rf {} +
done
busybox_links "$root"
accounts "$root"
mkdir -p "$root"/go/src "$root"/go/bin "$root"/usr/local
ln -sfn "$(cd "$root"/usr/lib && ls -d go-1.* | head -n 1)" "$root"/usr/lib/go
ln -s ../lib/go "$root"/usr/local/go

# A module proxy in a directory: https://go.dev/ref/mod#goproxy-protocol
module=example.com/greeting version=v1.0.0
proxy=$root/srv/goproxy/$module/@v
mkdir -p "$proxy" "$WORK/zip/$module@$version"
cp "$HERE"/greeting/* "$WORK/zip/$module@$version"
echo $version > "$proxy/list"
echo "{\"Version\":\"$version\",\"Time\":\"2023-07-20T10:40:41Z\"}" > "$proxy/$version.info"
cp "$HERE/greeting/go.mod" "$proxy/$version.mod"
# Only files: no entries for directories.
/usr/bin/python3 - "$WORK/zip" "$proxy/$version.zip" <<'END'
import pathlib, sys, zipfile
root = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(sys.argv[2], "w") as out:
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        out.writestr(zipfile.ZipInfo(str(path.relative_to(root))), path.read_bytes())
END
pack "$root" 10-golang
