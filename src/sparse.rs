//! Copying files with holes: what takes no room takes none in the copy.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::platform::{Os, Platform as _};

/// Copies a file from its position to its end to the position of another, and returns the number of bytes.
/// Both positions are at the end then.
pub(crate) fn copy(mut source: &File, mut to: &File) -> io::Result<u64> {
    let copied = match has_room_for_holes(source, to)? {
        true => copy_data(source, to)?,
        false => 0,
    };
    // All of it; or what has been written meanwhile. The system copies between files itself.
    Ok(copied + io::copy(&mut source, &mut to)?)
}

/// A file that has a hole takes less room than its length. What is at the end of the other file already must
/// not show through.
fn has_room_for_holes(mut source: &File, mut to: &File) -> io::Result<bool> {
    let (from, into) = (source.metadata()?, to.metadata()?);
    if !from.is_file() || !into.is_file() || to.stream_position()? < into.len() {
        return Ok(false);
    }
    let start = source.stream_position()?;
    match Os::next_data(source, start) {
        Ok(Some(data)) if data.start == start && data.end >= from.len() => {}
        Ok(_) => {
            source.seek(SeekFrom::Start(start))?;
            return Ok(true);
        }
        Err(_) => {}
    }
    source.seek(SeekFrom::Start(start))?;
    Ok(false)
}

/// Copies as much as the file was long when it was asked for.
fn copy_data(mut source: &File, mut to: &File) -> io::Result<u64> {
    let (start, offset) = (source.stream_position()?, to.stream_position()?);
    let end = source.metadata()?.len().max(start);
    let mut position = start;
    while let Some(data) = Os::next_data(source, position)? {
        if data.start >= end {
            break;
        }
        source.seek(SeekFrom::Start(data.start))?;
        to.seek(SeekFrom::Start(offset + data.start - start))?;
        let length = data.end.min(end) - data.start;
        let copied = io::copy(&mut source.take(length), &mut to)?;
        position = data.start + copied;
        if copied < length {
            break;
        }
    }
    source.seek(SeekFrom::Start(end))?;
    // Over the last hole.
    let length = offset + end - start;
    if to.metadata()?.len() < length {
        to.set_len(length)?;
    }
    to.seek(SeekFrom::Start(length))?;
    Ok(end - start)
}
