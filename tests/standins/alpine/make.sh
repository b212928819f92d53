. "$HERE/../lib.sh"

root=$WORK/root
unpack "$root" busybox-static
# The rest of what comes with it (licences, hooks for an initramfs) is not part of an alpine.
rm -rf "$root"/usr "$root"/etc "$root"/var
mkdir -p "$root"/usr/bin "$root"/usr/lib "$root"/usr/local/bin "$root"/etc "$root"/home \
    "$root"/opt "$root"/run "$root"/sbin "$root"/srv/apk "$root"/var/tmp "$root"/lib
chmod 1777 "$root"/var/tmp
busybox_links "$root"
accounts "$root"
printf 'ID=alpine\nNAME="Alpine Linux (stand-in made from Debian)"\n' > "$root"/etc/os-release

# What `apk add ca-certificates` brings, without a network.
unpack "$WORK/certificates" ca-certificates
certificates "$WORK/certificates" "$WORK/package/etc/ssl/certs/ca-certificates.crt"
tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --numeric-owner -C "$WORK/package" \
    -czf "$root"/srv/apk/ca-certificates.tar.gz .
install -m 755 "$HERE/apk" "$root"/sbin/apk
pack "$root" 10-alpine
