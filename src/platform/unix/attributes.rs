//! Extended attributes, where their system calls are those of Linux: there, and on Apple's systems.

use rustix::io::Errno;

/// Reads an attribute, or the list of their names, into a buffer that grows as far as `longest`.
pub(super) fn read_growing(
    longest: usize,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 512];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < longest => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

/// The names in a list of attributes: each ends with a NUL.
pub(super) fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == 0).filter(|name| !name.is_empty())
}
