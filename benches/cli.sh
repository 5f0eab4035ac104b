#!/bin/bash
# The command-line tool against plain redirection, on the filesystem of DIRECTORY:
#
#   benches/cli.sh DIRECTORY [MEBIBYTES [RUNS]]
#
# Builds the command, then writes MEBIBYTES of random bytes in each way, one after the other, RUNS
# times, and prints a table of medians. `sync` before each run writes what is dirty.
set -euo pipefail

directory=${1:?"usage: benches/cli.sh DIRECTORY [MEBIBYTES [RUNS]]"} size=${2:-1024} runs=${3:-7}
cd "$(dirname "$0")/.."
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
cargo build --quiet --release --features cli
PATH=$target/release:$PATH

cd "$(mktemp -d -p "$directory")"
trap 'rm -rf "$PWD"' EXIT
head -c "${size}M" /dev/urandom >input

# The same index in all three arrays is one pair.
names=(
    "command, durable"
    "standard input (pipe), not synced"
    "standard input (pipe), durable"
    "standard input (file), not synced"
    "standard input (file), durable"
)
plain=(
    'cat input >f && sync f .'
    'cat input | cat >f'
    'cat input | cat >f && sync f .'
    'cat <input >f'
    'cat <input >f && sync f .'
)
tool=(
    'write-atomically f -- cat input'
    'cat input | write-atomically --durability relaxed f'
    'cat input | write-atomically f'
    'write-atomically --durability relaxed f <input'
    'write-atomically f <input'
)

measure() { # FILE COMMAND: appends its microseconds
    rm -f f
    cat input >/dev/null
    sync
    local start=${EPOCHREALTIME/./}
    bash -c "$2"
    local end=${EPOCHREALTIME/./}
    echo $((end - start)) >>"$1"
    cmp -s input f || { echo "benches/cli.sh: wrong content after: $2" >&2; exit 1; }
}
for ((run = 0; run < runs; run++)); do
    for pair in "${!names[@]}"; do
        # The order alternates.
        if ((run % 2)); then
            measure "tool$pair" "${tool[pair]}"
            measure "plain$pair" "${plain[pair]}"
        else
            measure "plain$pair" "${plain[pair]}"
            measure "tool$pair" "${tool[pair]}"
        fi
    done
done

median() { sort -n "$1" | sed -n "$(((runs + 1) / 2))p"; }
rate() { echo "$((size * 1000000 / $1)) MiB/s"; }
echo "$size MiB, median of $runs, $(stat -f -c %T .), $(uname -sr), $(nproc) cores"
echo
echo "| output from | plain | write-atomically | throughput |"
echo "| --- | --- | --- | --- |"
for pair in "${!names[@]}"; do
    plain_time=$(median "plain$pair") tool_time=$(median "tool$pair")
    ratio=$((plain_time * 100 / tool_time))
    printf '| %s | `%s`: %s | `%s`: %s | %d.%02d × |\n' "${names[pair]}" \
        "${plain[pair]//|/\\|}" "$(rate "$plain_time")" \
        "${tool[pair]//|/\\|}" "$(rate "$tool_time")" $((ratio / 100)) $((ratio % 100))
done
