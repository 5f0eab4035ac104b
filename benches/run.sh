#!/usr/bin/env bash
# The whole comparison: on ext4, xfs, btrfs and tmpfs, and on the disk that DIR itself is on, into
# benches/results/, and its headlines into benches/README.md. Needs what filesystems.sh needs, strace,
# and about an hour of a quiet machine.
#
#   benches/run.sh DIR [OPTION…]      DIR gets the filesystems, on a real disk; options are `compare`'s
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$1
shift

mkdir -p "$here/results"
cargo build --release --manifest-path "$here/compare/Cargo.toml"
target=$(cargo metadata --no-deps --format-version 1 --manifest-path "$here/compare/Cargo.toml" | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
"$here/build-cost.sh" | tee "$here/results/build-cost.md"
trap '"$here/filesystems.sh" release "$dir"' EXIT
"$here/filesystems.sh" make "$dir"
for fs in ext4 xfs btrfs tmpfs; do
    "$target/release/compare" "$dir/$fs" --out "$here/results/$fs.md" "$@"
done
mkdir -p "$dir/disk"
"$target/release/compare" "$dir/disk" --out "$here/results/disk.md" --only small,streams "$@"
rmdir "$dir/disk"
"$target/release/compare" headlines "$here/results" "$here/README.md"
