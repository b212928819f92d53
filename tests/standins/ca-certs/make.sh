. "$HERE/../lib.sh"

unpack "$WORK/unpacked" ca-certificates
certificates "$WORK/unpacked" "$WORK/root/etc/ssl/certs/ca-certificates.crt"
pack_only "$WORK/root" 10-certificates
