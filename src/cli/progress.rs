//! How much has been written so far, for those who wait for it.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::say;

/// When to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Never,
    /// On a terminal, when it takes longer than a second.
    IfItTakesLong,
    /// From the start on; where there is no terminal, a line now and then and one at the end.
    Always,
}

const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);
/// Between two lines where lines stay.
const LINES: Duration = Duration::from_secs(10);

/// What is shown on standard error until this is dropped.
pub struct Progress {
    show: Show,
    bar: ProgressBar,
    paused: Arc<AtomicBool>,
    source: Arc<OnceLock<Source>>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    pub fn new(show: Show) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let source = Arc::new(OnceLock::new());
        let (stop, stopped) = mpsc::channel();
        let paused = Arc::new(AtomicBool::new(false));
        let (shared, source_of_line) = (paused.clone(), source.clone());
        let line = Line { bar: bar.clone(), paused: shared, source: source_of_line, stopped };
        let thread = match (show, io::stderr().is_terminal()) {
            (Show::Never, _) | (Show::IfItTakesLong, false) => None,
            (Show::IfItTakesLong, true) => Some(thread::spawn(move || line.draw(PATIENCE))),
            (Show::Always, true) => Some(thread::spawn(move || line.draw(Duration::ZERO))),
            (Show::Always, false) => Some(thread::spawn(move || line.log())),
        };
        Progress { show, bar, paused, source, thread: thread.map(|thread| (stop, thread)) }
    }

    /// What counts is what is added to the staged file from now on.
    pub fn watch_file(&self, staged: &File) {
        if self.thread.is_some() {
            if let (Ok(file), Ok(metadata)) = (staged.try_clone(), staged.metadata()) {
                let _ = self.source.set(Source::File { file, from: metadata.len() });
            }
        }
    }

    pub fn watch_path(&self, staged: &Path) {
        let _ = self.source.set(Source::Path(staged.to_owned()));
    }

    /// Whether somebody is looking who wants to know what happens.
    pub fn shows_on_terminal(&self) -> bool {
        self.show != Show::Never && io::stderr().is_terminal()
    }

    /// Shows nothing on a terminal until [`go_on`](Self::go_on): nothing is written yet.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    pub fn go_on(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    pub fn say(&self, what: &'static str) {
        self.bar.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Where to look.
enum Source {
    File {
        file: File,
        from: u64,
    },
    /// The path that the command was given. How large a directory tree is can't be told at a glance.
    Path(PathBuf),
}

impl Source {
    fn written(&self) -> u64 {
        match self {
            Source::File { file, from } => {
                file.metadata().map_or(0, |m| m.len().saturating_sub(*from))
            }
            Source::Path(path) => match fs::metadata(path) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                _ => 0,
            },
        }
    }
}

struct Line {
    bar: ProgressBar,
    paused: Arc<AtomicBool>,
    source: Arc<OnceLock<Source>>,
    stopped: Receiver<()>,
}

impl Line {
    fn draw(self, patience: Duration) {
        const TEMPLATE: &str = "{bytes}  {bytes_per_sec}  {elapsed}  {wide_msg}";
        loop {
            if self.stops_within(patience) {
                return;
            }
            if !self.paused.load(Ordering::Relaxed) {
                break;
            }
            self.bar.reset_elapsed();
        }
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            self.bar.set_style(style);
        }
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        while !self.stops_within(TICK) {
            self.bar.set_position(self.written());
            self.bar.tick();
        }
        self.bar.finish_and_clear();
    }

    fn log(self) {
        let start = Instant::now();
        loop {
            let stops = self.stops_within(LINES);
            let (written, elapsed) = (self.written(), start.elapsed().as_secs_f64());
            let rate = HumanBytes((written as f64 / elapsed) as u64);
            say(format_args!("{}  {rate}/s  {elapsed:.1} s", HumanBytes(written)));
            if stops {
                return;
            }
        }
    }

    fn written(&self) -> u64 {
        self.source.get().map_or(0, Source::written)
    }

    fn stops_within(&self, time: Duration) -> bool {
        self.stopped.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }
}
