//! The writer and the reader are those of the synchronous functions: the same content, positions and
//! errors, whatever is done in whatever order.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use ::tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader, copy, duplex,
};
use fs_err as fs;
use rstest::rstest;
use write_atomically::tokio::{Writer, update_atomically, write_atomically};
use write_atomically::{Error, Step};

use super::{relaxed, runtime};
use crate::child::{self, Child};
use crate::support::{Directory, assert_state, prepare, read};

/// Marsaglia, "Xorshift RNGs" (2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One of the things that may be done to a writer, to the file and to the model.
async fn act(random: &mut Random, w: &mut Writer, model: &mut Cursor<Vec<u8>>) -> io::Result<()> {
    match random.below(8) {
        0..=2 => {
            let longest = [20, 3000, 70_000, 600_000][random.below(4) as usize];
            let bytes = vec![random.below(256) as u8; random.below(longest) as usize];
            w.write_all(&bytes).await?;
            Write::write_all(model, &bytes)?;
        }
        3 => w.flush().await?,
        4 => {
            let length = model.get_ref().len() as u64;
            let to = match random.below(3) {
                0 => SeekFrom::Start(random.below(length + 100)),
                1 => SeekFrom::End(-(random.below(length + 1) as i64)),
                _ => SeekFrom::Current(random.below(100) as i64),
            };
            assert_eq!(w.seek(to).await?, Seek::seek(model, to)?);
        }
        5 => assert_eq!(w.stream_position().await?, model.position()),
        6 => {
            let length = random.below(500_000);
            w.set_len(length).await?;
            model.get_mut().resize(length as usize, 0);
        }
        _ => {
            let length = w.file().await?.metadata()?.len();
            assert_eq!(length, model.get_ref().len() as u64);
        }
    }
    Ok(())
}

#[rstest]
fn a_writer_does_what_a_file_does(
    #[values(None, Some(0), Some(1), Some(1000), Some(1 << 20))] capacity: Option<usize>,
    #[values("one thread", "threads")] flavour: &str,
) {
    let runtime = runtime(flavour, 1);
    for seed in 1..30 {
        let directory = prepare("here", Some("old"));
        let options = match capacity {
            Some(capacity) => relaxed().buffer_capacity(capacity).tokio(),
            None => relaxed().tokio(),
        };
        let (mut random, mut model) = (Random(seed * 0x9e37), Cursor::new(Vec::new()));
        let path = directory.join("file");
        let writing = options.write(&path, async |w| {
            for _ in 0..random.below(60) {
                act(&mut random, w, &mut model).await?;
            }
            Ok(())
        });
        runtime.block_on(writing).unwrap();
        assert!(fs::read(&path).unwrap() == model.into_inner(), "seed {seed}");
        assert_eq!(directory.listing(), ["file", "neighbour"]);
    }
}

#[rstest]
fn a_reader_does_what_a_file_does(#[values(None, Some(0), Some(1000))] capacity: Option<usize>) {
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
    let directory = Directory::new();
    let path = directory.file("file", &content);
    let options = match capacity {
        Some(capacity) => relaxed().buffer_capacity(capacity).tokio(),
        None => relaxed().tokio(),
    };
    runtime("threads", 1).block_on(async {
        for seed in 1..30 {
            let (mut random, mut model) = (Random(seed * 0x9e37), Cursor::new(content.clone()));
            let updating = options.update(&path, async |old, w| {
                let old = old.unwrap();
                for _ in 0..random.below(60) {
                    let to = SeekFrom::Current(random.below(2000) as i64 - 500);
                    match random.below(4) {
                        0 => match Seek::seek(&mut model, to) {
                            Ok(position) => assert_eq!(old.seek(to).await?, position),
                            Err(_) => assert!(old.seek(to).await.is_err()),
                        },
                        1 => assert_eq!(old.stream_position().await?, model.position()),
                        2 => {
                            let to = SeekFrom::Start(random.below(310_000));
                            assert_eq!(old.seek(to).await?, Seek::seek(&mut model, to)?);
                        }
                        _ => {
                            let mut bytes = vec![0; random.below(2000) as usize];
                            let mut same = vec![0; bytes.len()];
                            let length = Read::read(&mut model, &mut same)?;
                            old.read_exact(&mut bytes[..length]).await?;
                            assert!(bytes[..length] == same[..length]);
                        }
                    }
                }
                old.rewind().await?;
                copy(old, w).await
            });
            assert_eq!(updating.await.unwrap(), content.len() as u64);
        }
    });
    assert!(fs::read(&path).unwrap() == content);
    assert_eq!(directory.listing(), ["file"]);
}

#[test]
fn the_helpers_of_tokio_work() {
    let directory = prepare("here", Some("1\n2\n3\n"));
    let path = directory.join("file");
    runtime("threads", 2).block_on(async {
        let updated = update_atomically(&path, async |old, new| {
            let mut lines = old.unwrap().lines();
            while let Some(line) = lines.next_line().await? {
                new.write_all(format!("{line}0\n").as_bytes()).await?;
            }
            Ok(())
        });
        updated.await.unwrap();
        assert_eq!(read(&path), "10\n20\n30\n");
        let copied = write_atomically(&path, async |w| {
            let (mut sender, receiver) = duplex(1000);
            let sending = async {
                sender.write_all(super::content().as_bytes()).await?;
                sender.shutdown().await
            };
            let mut receiver = BufReader::new(receiver);
            let (sent, copied) = ::tokio::join!(sending, copy(&mut receiver, w));
            sent?;
            Ok(copied?)
        });
        assert_eq!(copied.await.unwrap(), super::content().len() as u64);
    });
    assert_state(&directory, Some(&super::content()));
}

#[test]
fn a_file_is_copied_and_a_child_writes_to_the_descriptor() {
    let directory = prepare("here", Some("old"));
    let (path, neighbour) = (directory.join("file"), directory.join("neighbour"));
    runtime("threads", 2).block_on(async {
        let written = write_atomically(&path, async |w| {
            w.write_all(b"first ").await?;
            let source = std::fs::File::open(&neighbour)?;
            assert_eq!(w.copy_from(&source).await?, 9);
            let output = w.file().await?.try_clone()?;
            let mut echo = ::tokio::process::Command::new("echo");
            anyhow::ensure!(echo.arg(" child").stdout(output).status().await?.success());
            assert_eq!(w.stream_position().await?, 22);
            Ok(w.write_all(b"last").await?)
        });
        written.await.unwrap();
    });
    assert_state(&directory, Some("first untouched child\nlast"));
}

#[rstest]
#[ignore = "what other tests run as a child process"]
fn child() {
    let Some((role, path)) = child::role() else { return };
    let result = runtime("one thread", 1).block_on(relaxed().tokio().write(&path, async |w| {
        let parts = if role == "in the last buffer" { 11 } else { 100 };
        for _ in 0..parts {
            let written = w.write_all(&[b'x'; 10_000]).await;
            if role != "and ignored" {
                written?;
            }
        }
        if role == "at the flush" {
            w.flush().await?;
        }
        Ok(())
    }));
    let error = result.unwrap_err();
    let error = Error::find(&error).unwrap();
    child::say(format!("{:?} {:?}", error.step(), error.kind()));
}

/// The limit is 100 blocks of 1024 bytes, and a buffer takes 64 KiB: the second one does not fit.
#[rstest]
fn an_error_of_an_earlier_buffer_is_not_lost(
    #[values("at the next write", "and ignored", "in the last buffer", "at the flush")] role: &str,
) {
    let directory = prepare("here", Some("old"));
    let child = Child::new(module_path!(), role, &directory.join("file"));
    let answer = child.in_shell("trap '' XFSZ; ulimit -f 100").answer();
    assert_eq!(answer, format!("{:?} FileTooLarge", Step::Write));
    assert_state(&directory, Some("old"));
}
