//! Random numbers that can be had again: SplitMix64 (G. Steele et al., "Fast splittable pseudorandom number
//! generators", 2014).

use std::ops::Range;

pub struct Rng(u64);

impl Rng {
    /// The stream of a seed that `stream` names, so that each thread has its own.
    pub fn new(seed: u64, stream: u64) -> Rng {
        let mut rng = Rng(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        rng.next();
        rng
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn range(&mut self, range: Range<i64>) -> i64 {
        let span = u64::try_from(range.end - range.start).expect("a range that is not empty");
        range.start + (self.next() % span) as i64
    }

    pub fn index(&mut self, length: usize) -> usize {
        (self.next() % length as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// One of the items, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, items: &[(u64, T)]) -> T {
        let mut left = self.next() % items.iter().map(|(weight, _)| weight).sum::<u64>();
        for (weight, item) in items {
            if left < *weight {
                return *item;
            }
            left -= weight;
        }
        unreachable!("the weights add up")
    }
}

/// MF_SEED, or another one each time.
pub fn seed() -> u64 {
    match std::env::var("MF_SEED") {
        Ok(seed) => seed.parse().expect("MF_SEED is a number"),
        Err(_) => Rng::new(crate::server::now() as u64, u64::from(std::process::id())).next() % 1_000_000_000,
    }
}

/// `count`, times MF_ROUNDS.
pub fn rounds(count: u64) -> u64 {
    count * std::env::var("MF_ROUNDS").map_or(1, |rounds| rounds.parse().expect("MF_ROUNDS is a number"))
}

/// Says how to repeat a failing test.
pub struct Announce(pub u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with MF_SEED={} (and the same MF_ROUNDS)", self.0);
        }
    }
}
