. "$HERE/../lib.sh"

root=$WORK/root
unpack "$root" python3 python3-pip busybox-static
busybox_links "$root"
accounts "$root"
ln -s python3 "$root"/usr/bin/python
# As in the real image, pip may install into the system.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
online "$root" python3 -m pip --quiet --disable-pip-version-check download \
    --no-cache-dir --only-binary :all: --dest /srv/wheels flask
printf '[global]\nno-index = true\nfind-links = /srv/wheels\n' > "$root"/etc/pip.conf
pack "$root" 10-python
