//! How many slots a source streams at once: fewer when a slot's pause was above the budget, more
//! when it was well below.

/// The number for the next move, or the rest of this one.
pub(super) fn next_parallel(now: u64, max: u64, pause_us: u64, budget_us: u64) -> u64 {
    let next = if pause_us > budget_us {
        now / 2
    } else if pause_us < budget_us / 2 {
        now + now.div_ceil(4)
    } else {
        now
    };
    next.clamp(1, max.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_halves_over_the_budget_and_grows_below_half_of_it() {
        assert_eq!(next_parallel(16, 16, 20_001, 20_000), 8);
        assert_eq!(next_parallel(1, 16, 20_001, 20_000), 1);
        assert_eq!(next_parallel(8, 16, 15_000, 20_000), 8);
        assert_eq!(next_parallel(8, 16, 9_000, 20_000), 10);
        assert_eq!(next_parallel(16, 16, 0, 20_000), 16);
        assert_eq!(next_parallel(16, 4, 15_000, 20_000), 4);
    }
}
