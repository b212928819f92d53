. "$HERE/../lib.sh"

# Only the program: what it is copied into has the C library.
unpack "$WORK/unpacked" etcd-server
mkdir -p "$WORK/root/usr/local/bin"
mv "$WORK/unpacked/usr/bin/etcd" "$WORK/root/usr/local/bin/etcd"
pack_only "$WORK/root" 10-etcd
