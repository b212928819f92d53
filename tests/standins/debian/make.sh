. "$HERE/../lib.sh"

mkdir "$WORK/base" "$WORK/layer"
for layer in "$FROM"/*.tar.gz; do tar -xzf "$layer" -C "$WORK/base"; done
local_packages "$WORK/base" "$WORK/layer" make gcc libc6-dev tcl
# Whoever asks for gcc gets the C library's headers as well: gcc recommends them.
echo 'APT::Install-Recommends "true";' > "$WORK/layer/etc/apt/apt.conf.d/zz-recommends"
pack_only "$WORK/layer" 20-packages
