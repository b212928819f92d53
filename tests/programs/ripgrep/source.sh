# ripgrep and all that it is made of, by way of the registry of crates.
. "$HERE/../lib.sh"

# Cargo fetches a program's source only as somebody's dependency.
mkdir -p "$WORK/fetch/src"
cd "$WORK/fetch"
touch src/lib.rs
printf '%s\n' '[package]' 'name = "fetch"' 'edition = "2021"' '[workspace]' '[dependencies]' \
    'ripgrep = "=13.0.0"' > Cargo.toml
"$CARGO" vendor --quiet vendor > /dev/null 2>&1
cp -r vendor/ripgrep/. "$OUT"
# The versions of its own lock file: a compiler of its time can do with them.
cd "$OUT"
"$CARGO" vendor --quiet --locked vendor > /dev/null
mkdir -p .cargo
printf '%s\n' '[source.crates-io]' 'replace-with = "vendored"' '[source.vendored]' \
    'directory = "vendor"' > .cargo/config.toml
# Libraries for Windows.
printf 'vendor/winapi-*/lib\n' > .dockerignore
