//! The values of options.

use std::time::Duration;

use clap::ValueEnum;
use write_atomically::Durability;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HowDurable {
    /// The new content
    Durable,
    /// The old content or the new, whole
    Consistent,
    /// Whatever the filesystem makes of it: nothing is synced
    Relaxed,
}

impl From<HowDurable> for Durability {
    fn from(how: HowDurable) -> Self {
        match how {
            HowDurable::Durable => Durability::Durable,
            HowDurable::Consistent => Durability::Consistent,
            HowDurable::Relaxed => Durability::Relaxed,
        }
    }
}

pub fn permission_bits(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err("not an octal number from 0 to 7777".to_owned()),
    }
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "not a number of seconds".to_owned())
}

/// A number and a unit.
pub fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "not a number with one of the units s, m, h, d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A command line for the shell, with a place for the path.
pub fn check(text: &str) -> Result<String, String> {
    match text.contains("{}") {
        true => Ok(text.to_owned()),
        false => Err("`{}` is missing: the path of what is to be checked".to_owned()),
    }
}
