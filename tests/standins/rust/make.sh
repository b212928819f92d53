. "$HERE/../lib.sh"

root=$WORK/root
unpack "$root" rustc cargo gcc libc6-dev busybox-static
rm -rf "$root"/usr/lib/gcc/*/*/lto1 "$root"/usr/lib/gcc/*/*/lto-wrapper "$root"/usr/lib/gcc/*/*/*san*
busybox_links "$root"
accounts "$root"
# The name that update-alternatives would give it.
ln -sf gcc "$root"/usr/bin/cc
pack "$root" 10-rust
