#!/usr/bin/env bash
# The cost of depending on each crate: the time of a cold release build of a program that depends on
# that crate alone, with its default features, and the number of crates in it (that crate, build
# scripts' and macros' dependencies included). The builds are interleaved, ROUNDS times (default 3).
# Prints tab-separated values: benches/results/build-cost.tsv.
#
#   benches/build-cost.sh
#
# The crates are downloaded before the first build.
set -euo pipefail
crate=$(cd "$(dirname "$0")/.." && pwd)
rounds=${ROUNDS:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

declare -A needs=(
    [write-atomically]="{ path = \"$crate\" }"
    ["write-atomically, no default features"]="{ path = \"$crate\", default-features = false }"
    [tempfile]='"3.27"'
    [atomicwrites]='"0.4.4"'
    [atomic-write-file]='"0.3.1"'
    [write_atomic]='"0.9.0"'
    [cap-std-ext]='"5.1.2"'
)
names=("write-atomically" "write-atomically, no default features" tempfile atomicwrites atomic-write-file write_atomic cap-std-ext)

for name in "${names[@]}"; do
    mkdir -p "$work/$name/src"
    echo 'fn main() {}' >"$work/$name/src/main.rs"
    printf '[package]\nname = "cost"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n%s = %s\n' \
        "${name%%,*}" "${needs[$name]}" >"$work/$name/Cargo.toml"
    (cd "$work/$name" && cargo fetch --quiet)
done

for ((round = 0; round < rounds; round++)); do
    for name in $(seq 0 $((${#names[@]} - 1)) | shuf); do
        name=${names[$name]}
        rm -rf "$work/target"
        started=$(date +%s%N)
        (cd "$work/$name" && CARGO_TARGET_DIR="$work/target" cargo build --release --offline --quiet)
        echo "$((($(date +%s%N) - started) / 1000000))" >>"$work/$name/times"
    done
done

echo "# Seconds of a cold release build, default features unless told, $rounds rounds on $(nproc) cores."
printf 'crate\tquickest\tmedian\tslowest\tcrates\n'
for name in "${names[@]}"; do
    crates=$(cd "$work/$name" && cargo tree --offline --prefix none --edges normal,build --format '{p}' | sed 's/ (.*//' | sort -u | grep -vc '^cost ')
    sort -n "$work/$name/times" | awk -v name="$name" -v crates="$crates" '
        { times[NR] = $1 / 1000 }
        END { printf "%s\t%.1f\t%.1f\t%.1f\t%d\n", name, times[1], times[int((NR + 1) / 2)], times[NR], crates }'
done
