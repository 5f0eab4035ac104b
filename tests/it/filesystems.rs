//! The table of filesystems that tests run on.

use rstest_reuse::template;

/// `fuse` is one that knows no unnamed files.
#[cfg(target_os = "linux")]
#[template]
#[rstest]
#[case::here("here")]
#[ignore = "needs a mounted ext4: run tests/privileged"]
#[case::ext4("ext4")]
#[ignore = "needs a mounted xfs: run tests/privileged"]
#[case::xfs("xfs")]
#[ignore = "needs a mounted btrfs: run tests/privileged"]
#[case::btrfs("btrfs")]
#[ignore = "needs a mounted tmpfs: run tests/privileged"]
#[case::tmpfs("tmpfs")]
#[ignore = "needs a mounted overlayfs: run tests/privileged"]
#[case::overlay("overlay")]
#[ignore = "needs a mounted FUSE filesystem: run tests/privileged"]
#[case::fuse("fuse")]
fn filesystems(#[case] filesystem: &str) {}

/// Elsewhere there are none to mount.
#[cfg(not(target_os = "linux"))]
#[template]
#[rstest]
#[case::here("here")]
fn filesystems(#[case] filesystem: &str) {}
