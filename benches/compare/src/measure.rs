//! Interleaved measurement: in every round each contender runs once, in a new random order, so that
//! other load on the machine affects all of them alike.

use std::time::{Duration, Instant};

/// One contender: `prepare` is not timed, `run` is.
pub struct Entry<'a> {
    pub name: String,
    pub prepare: Box<dyn FnMut() + 'a>,
    pub run: Box<dyn FnMut() + 'a>,
}

#[derive(Clone)]
pub struct Sample {
    pub name: String,
    pub seconds: Vec<f64>,
}

impl Sample {
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = q * (sorted.len() - 1) as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Runs `entries` for `rounds` rounds, or until `limit` is over and at least 5 rounds are done,
/// after `warm_up` rounds that are not counted.
pub fn interleave(
    entries: &mut [Entry],
    warm_up: usize,
    rounds: usize,
    limit: Duration,
) -> Vec<Sample> {
    let mut samples: Vec<Sample> = entries
        .iter()
        .map(|entry| Sample { name: entry.name.clone(), seconds: Vec::with_capacity(rounds) })
        .collect();
    let mut order: Vec<usize> = (0..entries.len()).collect();
    let mut random = Random::new();
    let start = Instant::now();
    for round in 0..warm_up + rounds {
        if round >= warm_up + 5 && start.elapsed() > limit {
            break;
        }
        random.shuffle(&mut order);
        for &at in &order {
            let entry = &mut entries[at];
            (entry.prepare)();
            let started = Instant::now();
            (entry.run)();
            let taken = started.elapsed();
            if round >= warm_up {
                samples[at].seconds.push(taken.as_secs_f64());
            }
        }
    }
    samples
}

/// xorshift64*: the order needs no more.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Random(now.as_nanos() as u64 | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
