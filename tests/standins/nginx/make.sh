. "$HERE/../lib.sh"

root=$WORK/root
unpack "$root" nginx busybox-static
busybox_links "$root"
accounts "$root"
mkdir -p "$root"/usr/share/nginx/html "$root"/etc/nginx/conf.d "$root"/var/log/nginx \
    "$root"/var/lib/nginx "$root"/run
rm -rf "$root"/etc/nginx/sites-enabled "$root"/etc/nginx/modules-enabled
cat > "$root"/etc/nginx/conf.d/default.conf <<'END'
server {
    listen 80;
    root /usr/share/nginx/html;
    index index.html;
}
END
echo '<h1>Welcome to nginx!</h1>' > "$root"/usr/share/nginx/html/index.html
pack "$root" 10-nginx
