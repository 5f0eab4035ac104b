//! A file appears at its path only when the closure that wrote it returned `Ok`.
