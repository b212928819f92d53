. "$HERE/../lib.sh"

root=$WORK/root
unpack "$root" python3 python3-pip python3-flask busybox-static
busybox_links "$root"
accounts "$root"
ln -s python3 "$root"/usr/bin/python
# As in the real image, pip may install into the system.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
# Flask and what it needs are there to be installed, not installed.
/usr/bin/python3 "$HERE/wheels.py" "$root/usr/lib/python3/dist-packages" "$root/srv/wheels" \
    Flask:Werkzeug,Jinja2,itsdangerous,click Werkzeug:MarkupSafe Jinja2:MarkupSafe MarkupSafe \
    itsdangerous click
rm -f "$root"/usr/bin/flask
printf '[global]\nno-index = true\nfind-links = /srv/wheels\n' > "$root"/etc/pip.conf
pack "$root" 10-python
