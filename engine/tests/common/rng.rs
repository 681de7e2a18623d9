//! Seeded chance: one seed, one run.

/// A source of random numbers.
///
/// # Source
/// splitmix64, Steele, Lea and Flood, 2014.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The source that this seed starts.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number of 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether something of this likelihood happens.
    pub(crate) fn percent(&mut self, likelihood: usize) -> bool {
        self.below(100) < likelihood
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The seed of a run: `SEED` from the environment (decimal, or hexadecimal with `0x`), or `default`.
pub(crate) fn seed_or(default: u64) -> u64 {
    let Ok(text) = std::env::var("SEED") else {
        return default;
    };
    let seed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    seed.unwrap_or_else(|_| panic!("SEED is no number: {text}"))
}
