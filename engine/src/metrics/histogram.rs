//! A histogram of durations with one writing core: 8 buckets per doubling, 6 % wide on average.

use crate::metrics::Cell;

const SUB_BITS: u32 = 3;
const BUCKET_COUNT: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

/// Counts of durations in nanoseconds.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Cell]>,
    max_ns: Cell,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKET_COUNT).map(|_| Cell::default()).collect(),
            max_ns: Cell::default(),
        }
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < 1 << SUB_BITS {
        return ns as usize;
    }
    let exponent = 63 - ns.leading_zeros();
    let sub = (ns >> (exponent - SUB_BITS)) as usize & ((1 << SUB_BITS) - 1);
    ((exponent - SUB_BITS + 1) as usize) << SUB_BITS | sub
}

/// Largest duration of a bucket.
fn bucket_end(bucket: usize) -> u64 {
    let sub = bucket as u64 & ((1 << SUB_BITS) - 1);
    let group = (bucket >> SUB_BITS) as u32;
    if group == 0 {
        return sub;
    }
    let width_bits = group - 1;
    (((1u64 << SUB_BITS | sub) + 1) << width_bits).wrapping_sub(1)
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn record(&self, ns: u64) {
        self.buckets[bucket_of(ns)].add(1);
        if ns > self.max_ns.get() {
            self.max_ns.set(ns);
        }
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Cell::get).sum()
    }

    /// Number of durations below `ns`; exact if `ns` is a power of two.
    pub fn count_below(&self, ns: u64) -> u64 {
        self.buckets[..bucket_of(ns)].iter().map(Cell::get).sum()
    }

    /// The longest.
    pub fn max_ns(&self) -> u64 {
        self.max_ns.get()
    }

    /// The duration that this share of all stays below or at.
    pub fn percentile_ns(&self, share: f64) -> u64 {
        let total = self.count();
        let rank = ((total as f64) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.get();
            if seen >= rank {
                return bucket_end(i).min(self.max_ns());
            }
        }
        0
    }

    /// For each of `shares` the duration that this share of all durations of all `histograms` stays
    /// below or at.
    pub fn merged_percentiles_ns(histograms: &[&Self], shares: &[f64]) -> Vec<u64> {
        let bucket = |i: usize| histograms.iter().map(|h| h.buckets[i].get()).sum::<u64>();
        let counts: Vec<u64> = (0..BUCKET_COUNT).map(bucket).collect();
        let total: u64 = counts.iter().sum();
        let max_ns = histograms.iter().map(|h| h.max_ns()).max().unwrap_or(0);
        let percentile = |share: &f64| {
            let rank = ((total as f64) * share).ceil().max(1.0) as u64;
            let mut seen = 0;
            let hit = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            hit.map_or(0, |i| bucket_end(i).min(max_ns))
        };
        shares.iter().map(percentile).collect()
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.buckets.iter().for_each(|b| b.set(0));
        self.max_ns.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_contain_their_values() {
        for ns in (0..5000).chain([1 << 40, u64::MAX >> 1]) {
            let bucket = bucket_of(ns);
            assert!(ns <= bucket_end(bucket), "{ns}");
            assert!(bucket == 0 || ns > bucket_end(bucket - 1), "{ns}");
        }
    }

    #[test]
    fn merged_percentiles_are_those_of_one_histogram_with_all_durations() {
        let [odd, even, all] = [0; 3].map(|_| Histogram::default());
        for ns in 1..=10_000u64 {
            if ns % 2 == 1 {
                odd.record(ns)
            } else {
                even.record(ns)
            }
            all.record(ns);
        }
        let merged = Histogram::merged_percentiles_ns(&[&odd, &even], &[0.5, 0.99, 1.0]);
        assert_eq!(merged, [0.5, 0.99, 1.0].map(|share| all.percentile_ns(share)));
        assert_eq!(Histogram::merged_percentiles_ns(&[], &[0.5]), [0]);
    }

    #[test]
    fn percentile_of_uniform_durations_is_close() {
        let histogram = Histogram::default();
        (1..=10_000).for_each(|ns| histogram.record(ns));
        let p99 = histogram.percentile_ns(0.99) as f64;
        assert!((9_900.0 * 0.9..9_900.0 * 1.13).contains(&p99), "{p99}");
        assert_eq!(histogram.percentile_ns(1.0), 10_000);
    }
}
