//! Counters turned into rates: the mean of the last 16 samples, taken a tenth of a second apart.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::units::Ms;

/// Samples that the mean is taken over, as in Redis.
const SAMPLE_COUNT: usize = 16;
/// Samples come at least this far apart.
const SAMPLE_INTERVAL_MS: i64 = 100;
/// Commands, bytes in, bytes out.
const COUNTER_COUNT: usize = 3;

/// Rates of the process.
#[derive(Debug, Default)]
pub struct Rates {
    /// Time of the last sample; whoever moves it writes the sample.
    sampled_at_ms: AtomicI64,
    sample_index: AtomicU64,
    last: [AtomicU64; COUNTER_COUNT],
    per_second: [[AtomicU64; SAMPLE_COUNT]; COUNTER_COUNT],
}

impl Rates {
    /// Takes a sample of the counters, unless the last one is very recent.
    pub fn sample(&self, now: Ms, counts: [u64; COUNTER_COUNT]) {
        // Ordering: relaxed throughout: rates are for people, a torn sample is a wrong digit.
        let last_ms = self.sampled_at_ms.load(Ordering::Relaxed);
        let passed_ms = now.0.saturating_sub(last_ms);
        if passed_ms < SAMPLE_INTERVAL_MS {
            return;
        }
        let moved = self.sampled_at_ms.compare_exchange(
            last_ms,
            now.0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if moved.is_err() {
            return;
        }
        let index = self.sample_index.fetch_add(1, Ordering::Relaxed) as usize % SAMPLE_COUNT;
        for (i, count) in counts.into_iter().enumerate() {
            let last = self.last[i].swap(count, Ordering::Relaxed);
            // The first sample has no interval, and a reset makes counters smaller.
            let grown = if last_ms == 0 { 0 } else { count.saturating_sub(last) };
            let rate = u128::from(grown) * 1000 / passed_ms.unsigned_abs().max(1) as u128;
            self.per_second[i][index].store(rate as u64, Ordering::Relaxed);
        }
    }

    fn mean(&self, counter: usize) -> u64 {
        let samples = &self.per_second[counter];
        samples.iter().map(|s| s.load(Ordering::Relaxed)).sum::<u64>() / SAMPLE_COUNT as u64
    }

    /// Commands per second.
    pub fn commands(&self) -> u64 {
        self.mean(0)
    }

    /// Bytes received per second.
    pub fn in_bytes(&self) -> u64 {
        self.mean(1)
    }

    /// Bytes sent per second.
    pub fn out_bytes(&self) -> u64 {
        self.mean(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_of_a_steady_counter_is_its_rate() {
        let rates = Rates::default();
        for i in 0..40 {
            rates.sample(Ms(1_000_000 + i * 100), [i as u64 * 50, 0, i as u64 * 1000]);
            // Too early: ignored.
            rates.sample(Ms(1_000_000 + i * 100 + 99), [u64::MAX, 0, 0]);
        }
        assert_eq!((rates.commands(), rates.in_bytes(), rates.out_bytes()), (500, 0, 10_000));
    }
}
