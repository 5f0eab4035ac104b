#!/usr/bin/env bash
# Mounts filesystems to measure on, and unmounts them. Needs root, mkfs.ext4, mkfs.xfs
# (xfsprogs) and mkfs.btrfs (btrfs-progs), and 12 GiB of free disk.
#
#   benches/filesystems.sh make DIR       mounts DIR/ext4, DIR/xfs, DIR/btrfs and DIR/tmpfs
#   benches/filesystems.sh release DIR    unmounts them, deletes their images
#
# The images are written out in full, once, and their loop devices do direct I/O: otherwise the
# disk below would be allocating while it is measured, and "written back" would mean "copied into
# the page cache of the image".
set -euo pipefail

usage() { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
dir=$2
mib=${MIB:-4096}

release() {
    for fs in ext4 xfs btrfs tmpfs; do
        if mountpoint -q "$dir/$fs"; then umount "$dir/$fs"; fi
        if [ -e "$dir/$fs.img" ]; then
            for loop in $(losetup -j "$dir/$fs.img" -O NAME -n); do losetup -d "$loop"; done
            rm "$dir/$fs.img"
        fi
        if [ -d "$dir/$fs" ]; then rmdir "$dir/$fs"; fi
    done
}

make() {
    mkdir -p "$dir"
    trap 'release' ERR
    for fs in ext4 xfs btrfs; do
        mkdir -p "$dir/$fs"
        dd if=/dev/zero of="$dir/$fs.img" bs=4M count=$((mib / 4)) conv=fsync status=none
        case $fs in
            ext4) mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$dir/$fs.img" ;;
            xfs) mkfs.xfs -q -K "$dir/$fs.img" ;;
            btrfs) mkfs.btrfs -q -K "$dir/$fs.img" ;;
        esac
        loop=$(losetup --find --show --direct-io=on "$dir/$fs.img")
        # discarding would punch the image full of holes again
        mount -o nodiscard "$loop" "$dir/$fs"
        losetup -O NAME,DIO "$loop" | tail -n 1 | awk -v fs="$fs" '{ print fs ": " $1 ", direct I/O " ($2 ? "on" : "off") }'
    done
    mkdir -p "$dir/tmpfs"
    mount -t tmpfs -o size=3g write-atomically-bench "$dir/tmpfs"
    echo "tmpfs: 3 GiB"
}

case $1 in
    make) make ;;
    release) release ;;
    *) usage ;;
esac
