//! The guide: what the items' own pages do not say.
//!
//! | page | answers |
//! | --- | --- |
//! | [`promises`] | What may I rely on? Eleven numbered promises; the tests have the same numbers. |
//! | [`recipes`] | How do I write a cache, a download, a dataset, a configuration, a log, an archive? |
//! | [`errors`] | What do errors say, and why does my closure not compile? |
//! | [`durability`] | What survives a power cut, and what does it cost? |
//! | [`identity_and_access`] | Who may read the new file? What is carried over from the old one? |
//! | [`races_and_locks`] | What if several write at once? What do staging entries look like? |
//! | [`filesystems`] | What differs on Btrfs, NFS, FUSE, overlays? |
//! | [`platforms`] | What is promised on macOS, Windows, the BSDs, WASI? |
//! | [`the_command`] | How do I use it in shells, Makefiles and cron? |
//! | [`comparison`] | How do `tempfile`, `atomicwrites`, `fsys` and others differ? |
//! | [`proof`] | How do we know? |
//! | [`architecture`] | How is it built, and what do the words mean? |

pub mod architecture {
    #![doc = include_str!("architecture.md")]
}
pub mod comparison {
    #![doc = include_str!("comparison.md")]
}
pub mod durability {
    #![doc = include_str!("durability.md")]
}
pub mod errors {
    #![doc = include_str!("errors.md")]
}
pub mod filesystems {
    #![doc = include_str!("filesystems.md")]
}
pub mod identity_and_access {
    #![doc = include_str!("identity_and_access.md")]
}
pub mod platforms {
    #![doc = include_str!("platforms.md")]
}
pub mod promises {
    #![doc = include_str!("promises.md")]
}
pub mod proof {
    #![doc = include_str!("proof.md")]
}
pub mod races_and_locks {
    #![doc = include_str!("races_and_locks.md")]
}
pub mod recipes {
    #![doc = include_str!("recipes.md")]
}
pub mod the_command {
    #![doc = include_str!("the_command.md")]
}
