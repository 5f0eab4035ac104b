//! Copies of sparse files stay sparse.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use fs_err as fs;
use rstest::rstest;
use write_atomically::{WriteOptions, write_atomically};

use crate::support::Directory;

const LENGTH: u64 = 64 << 20;

/// A file with so many bytes of data at these offsets.
fn sparse(directory: &Directory, data: &[u64]) -> File {
    let file = fs::File::create_new(directory.join("sparse")).unwrap().into_file();
    file.set_len(LENGTH).unwrap();
    for offset in data {
        file.write_all_at(b"data", *offset).unwrap();
    }
    file.sync_all().unwrap();
    File::open(directory.join("sparse")).unwrap()
}

#[rstest]
#[case::only_a_hole(&[])]
#[case::data_at_the_start(&[0])]
#[case::data_at_the_end(&[LENGTH - 4])]
#[case::data_between(&[1 << 20, 40 << 20])]
fn a_copy_keeps_its_holes(
    #[case] data: &[u64],
    #[values("", "before")] before: &str,
    #[values(0, 4096 + 3, LENGTH, LENGTH + 5)] from: u64,
) {
    let directory = Directory::new();
    let mut source = sparse(&directory, data);
    source.seek(SeekFrom::Start(from)).unwrap();
    let out = directory.join("out");
    let copied = write_atomically(&out, |w| {
        w.write_all(before.as_bytes())?;
        let copied = w.copy_from(&mut source)?;
        w.write_all(b"after")?;
        Ok(copied)
    });
    assert_eq!(copied.unwrap(), LENGTH.saturating_sub(from));
    let mut expected = before.as_bytes().to_vec();
    source.seek(SeekFrom::Start(from)).unwrap();
    source.read_to_end(&mut expected).unwrap();
    expected.extend(b"after");
    assert!(fs::read(&out).unwrap() == expected);
    let room = fs::metadata(&out).unwrap().blocks() * 512;
    assert!(room < 1 << 20, "{room} bytes are taken");
}

#[test]
fn what_is_overwritten_does_not_show_through_a_hole() {
    let directory = Directory::new();
    let mut source = sparse(&directory, &[8 << 20]);
    let out = directory.join("out");
    let written = WriteOptions::new().write(&out, |w| {
        w.write_all(&[1; 1 << 20])?;
        w.seek(SeekFrom::Start(0))?;
        w.copy_from(&mut source)
    });
    assert_eq!(written.unwrap(), LENGTH);
    assert!(fs::read(&out).unwrap() == fs::read(directory.join("sparse")).unwrap());
}
