. "$HERE/../lib.sh"

mkdir "$WORK/base" "$WORK/layer"
for layer in "$FROM"/*.tar.gz; do tar -xzf "$layer" -C "$WORK/base"; done
local_packages "$WORK/base" "$WORK/layer" make gcc libc6-dev tcl
pack_only "$WORK/layer" 20-packages
