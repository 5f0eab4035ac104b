#!/usr/bin/env bash
# The whole comparison: on ext4, xfs, btrfs and tmpfs, and on the disk that DIR itself is on, into
# benches/results/*.tsv, and its headline table into benches/README.md. Needs what filesystems.sh needs,
# strace, fincore, and about an hour of an idle machine.
#
#   benches/run.sh DIR [OPTION…]      DIR gets the filesystems, on a real disk; options are `compare`'s
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$1
shift

cargo build --release --manifest-path "$here/compare/Cargo.toml"
target=$(cargo metadata --no-deps --format-version 1 --manifest-path "$here/compare/Cargo.toml" | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
new=$(mktemp -d)
trap 'rm -rf "$new"; "$here/filesystems.sh" release "$dir"' EXIT
"$here/build-cost.sh" | tee "$new/build-cost.tsv"
"$here/filesystems.sh" make "$dir"
for fs in ext4 xfs btrfs tmpfs; do
    "$target/release/compare" "$dir/$fs" --out "$new/$fs.tsv" "$@"
done
mkdir -p "$dir/disk"
"$target/release/compare" "$dir/disk" --out "$new/disk.tsv" --only small,streams "$@"
rmdir "$dir/disk"
# Only a complete run replaces the results.
cp "$new"/*.tsv "$here/results/"
"$target/release/compare" headline "$here/results" "$here/README.md"
