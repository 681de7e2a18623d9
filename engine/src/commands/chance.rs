//! Chance that a handler hands on: random numbers and random orders that outlive the call that drew
//! them, for replies that are written while they are sent. Their seed comes from `Ctx::random`.

/// Random numbers.
///
/// # Source
/// splitmix64, Steele, Lea and Flood, 2014.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers that this seed starts.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number of 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.draw()) * end as u128) >> 64) as usize
    }
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A random order of the numbers below a length, in no memory: each place has its number.
///
/// # Source
/// A Feistel network over the next power of four, walked until the number is below the length:
/// Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002.
#[derive(Clone, Debug)]
pub struct Shuffle {
    len: u64,
    half_bits: u32,
    rounds: [u64; ROUND_COUNT],
}

const ROUND_COUNT: usize = 4;

impl Shuffle {
    /// An order of the numbers below `len`.
    pub fn new(len: usize, random: &mut Random) -> Self {
        let len = len as u64;
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let rounds = [(); ROUND_COUNT].map(|()| random.draw());
        Self { len, half_bits: bits.div_ceil(2).max(1), rounds }
    }

    /// The number at a place. Places below the length have all numbers, each once.
    ///
    /// # Complexity
    /// O(1): about two tries on average, since fewer than three in four numbers are too large.
    pub fn at(&self, place: usize) -> usize {
        let mask = (1 << self.half_bits) - 1;
        let mut n = place as u64;
        loop {
            let (mut left, mut right) = (n >> self.half_bits, n & mask);
            for round in self.rounds {
                (left, right) = (right, left ^ (mixed(right ^ round) & mask));
            }
            n = (left << self.half_bits) | right;
            if n < self.len {
                return n as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffle_of_any_length_has_every_number_once() {
        let mut random = Random::new(7);
        for len in (1..70).chain([255, 256, 257, 1000, 5000]) {
            let shuffle = Shuffle::new(len, &mut random);
            let mut all: Vec<usize> = (0..len).map(|place| shuffle.at(place)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..len), "{len}");
        }
    }

    #[test]
    fn chance_favours_nobody() {
        let mut random = Random::new(1);
        let (mut first, mut drawn) = ([0; 100], [0; 100]);
        for _ in 0..100_000 {
            first[Shuffle::new(100, &mut random).at(0)] += 1;
            drawn[random.below(100)] += 1;
        }
        assert!(first.iter().chain(&drawn).all(|count| (850..1150).contains(count)));
    }
}
