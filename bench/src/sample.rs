//! Repeatable randomness: a small generator and the distributions that pick keys.
//!
//! Nothing here reads a clock or the system's entropy: one seed gives one sequence, on any machine.

use std::str::FromStr;

/// SplitMix64: passes the usual statistical suites, one multiply chain per draw, any seed is good.
///
/// # Source
/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed` and `stream`; threads share a seed and differ in stream.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        mixed.next();
        mixed
    }

    /// The next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, by the multiply-high reduction: its bias is below `bound / 2^64`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How keys are drawn, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Distribution {
    /// Every key equally often.
    Uniform,
    /// Key `k` in proportion to `1 / (k + 1)^theta`.
    Zipf {
        /// The exponent; larger means more skew.
        theta: f64,
    },
}

/// The exponent of `zipf` without a number: the one of the YCSB workloads.
pub(crate) const THETA_DEFAULT: f64 = 0.99;

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "zipf" => Ok(Self::Zipf { theta: THETA_DEFAULT }),
            Some(("zipf", theta)) => match theta.parse::<f64>() {
                Ok(theta) if theta > 0.0 && theta <= 10.0 => Ok(Self::Zipf { theta }),
                _ => Err(format!("theta of zipf must be above 0 and at most 10, got '{theta}'")),
            },
            _ => Err("expected uniform, zipf or zipf:THETA".into()),
        }
    }
}

/// Draws key numbers in `0..keys`.
#[derive(Clone, Debug)]
pub(crate) struct KeyPicker {
    keys: u64,
    zipf: Option<Zipf>,
}

impl KeyPicker {
    /// A picker over `keys` keys. Number 0 is the hottest of a skewed distribution.
    pub(crate) fn new(distribution: Distribution, keys: u64) -> Self {
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf { theta } => Some(Zipf::new(keys, theta)),
        };
        Self { keys, zipf }
    }

    /// The next key number.
    pub(crate) fn pick(&self, random: &mut Random) -> u64 {
        match &self.zipf {
            None => random.below(self.keys),
            Some(zipf) => zipf.pick(random),
        }
    }
}

/// Zipf numbers by rejection-inversion: constant set-up, any positive exponent, about 1.1 draws each.
///
/// # Source
/// Hörmann, Derflinger, "Rejection-inversion to generate variates from monotone discrete
/// distributions", ACM TOMACS 6 (1996).
#[derive(Clone, Debug)]
struct Zipf {
    theta: f64,
    count: f64,
    area_first: f64,
    area_all: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(keys: u64, theta: f64) -> Self {
        let mut zipf =
            Self { theta, count: keys as f64, area_first: 0.0, area_all: 0.0, shortcut: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_all = zipf.area(zipf.count + 0.5);
        zipf.shortcut = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.weight(2.0));
        zipf
    }

    fn pick(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.area_all + random.unit() * (self.area_first - self.area_all);
            let x = self.area_inverse(u);
            let rank = (x + 0.5).floor().clamp(1.0, self.count);
            if rank - x <= self.shortcut || u >= self.area(rank + 0.5) - self.weight(rank) {
                return rank as u64 - 1;
            }
        }
    }

    /// The weight of a rank: `x^-theta`.
    fn weight(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// An antiderivative of the weight: `(x^(1-theta) - 1) / (1-theta)`, or `ln x` at theta 1.
    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        let t = (1.0 - self.theta) * log;
        // The quotient (e^t - 1) / t loses its digits near 0, so its series takes over there.
        let quotient = if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t * 0.5 };
        quotient * log
    }

    fn area_inverse(&self, area: f64) -> f64 {
        // Rounding may push the argument of ln just outside its domain.
        let t = (area * (1.0 - self.theta)).max(-1.0);
        let quotient = if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t * 0.5 };
        (quotient * area).exp()
    }
}

/// The share of zipf draws over `keys` keys that fall on the `held` hottest ones: the hit ratio of
/// a cache that knows the future frequencies.
///
/// # Complexity
/// O(keys), summed from the small terms up.
pub(crate) fn zipf_share(keys: u64, held: u64, theta: f64) -> f64 {
    let (mut cold, mut hot) = (0.0, 0.0);
    for rank in (1..=keys).rev() {
        let weight = (rank as f64).powf(-theta);
        if rank > held {
            cold += weight;
        } else {
            hot += weight;
        }
    }
    hot / (hot + cold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(distribution: Distribution, keys: u64, seed: u64, count: usize) -> Vec<u64> {
        let picker = KeyPicker::new(distribution, keys);
        let mut random = Random::new(seed, 0);
        (0..count).map(|_| picker.pick(&mut random)).collect()
    }

    #[test]
    fn picker_same_seed_same_sequence() {
        for distribution in [Distribution::Uniform, Distribution::Zipf { theta: 0.99 }] {
            let first = draw(distribution, 1000, 7, 500);
            assert_eq!(first, draw(distribution, 1000, 7, 500));
            assert_ne!(first, draw(distribution, 1000, 8, 500));
        }
        assert_ne!(Random::new(7, 0).next(), Random::new(7, 1).next());
    }

    #[test]
    fn random_first_numbers_are_pinned() {
        // A change of these numbers makes old results incomparable with new ones.
        let mut random = Random(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn uniform_covers_all_keys_evenly() {
        let mut counts = [0u32; 50];
        for key in draw(Distribution::Uniform, 50, 1, 100_000) {
            counts[key as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (1700..2300).contains(&n)), "{counts:?}");
    }

    #[test]
    fn zipf_frequencies_follow_the_law() {
        const KEYS: u64 = 1000;
        const DRAWS: usize = 400_000;
        for theta in [0.5, 0.99, 1.0, 1.3] {
            let mut counts = vec![0u64; KEYS as usize];
            for key in draw(Distribution::Zipf { theta }, KEYS, 42, DRAWS) {
                counts[key as usize] += 1;
            }
            for held in [1, 10, 100, 500] {
                let seen = counts[..held].iter().sum::<u64>() as f64 / DRAWS as f64;
                let want = zipf_share(KEYS, held as u64, theta);
                assert!((seen - want).abs() < 0.005, "theta {theta} top {held}: {seen} {want}");
            }
        }
    }

    #[test]
    fn zipf_single_key_is_always_that_key() {
        assert!(draw(Distribution::Zipf { theta: 0.99 }, 1, 3, 1000).iter().all(|&key| key == 0));
    }

    #[test]
    fn distribution_text_is_checked() {
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert_eq!("zipf".parse(), Ok(Distribution::Zipf { theta: THETA_DEFAULT }));
        assert_eq!("zipf:1.2".parse(), Ok(Distribution::Zipf { theta: 1.2 }));
        for wrong in ["", "zipf:", "zipf:0", "zipf:-1", "zipf:x", "zipf:nan", "normal"] {
            assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
        }
    }
}
