. "$HERE/../lib.sh"

debian apt "$WORK/root"
rm -rf "$WORK"/root/var/lib/apt/lists/* "$WORK"/root/var/cache/apt/*.bin "$WORK"/root/var/log/* \
    "$WORK"/root/usr/share/doc "$WORK"/root/usr/share/man "$WORK"/root/usr/share/locale
pack "$WORK/root" 10-base
