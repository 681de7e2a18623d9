//! Error replies of one core by their first word. The words are few and mostly ours, but scripts
//! may reply with words of their own, so the table fills as they come and then stays full.

use std::sync::OnceLock;

use crate::metrics::Cell;

/// Most words that are told apart, as in Redis.
const PREFIX_COUNT_MAX: usize = 128;
/// Longest word that is kept.
const PREFIX_BYTES_MAX: usize = 32;

#[derive(Debug, Default)]
struct Count {
    prefix: OnceLock<Box<str>>,
    count: Cell,
}

/// Counts by word, with one writing core.
#[derive(Debug)]
pub struct ErrorCounts {
    /// Taken from the front; the rest has no prefix yet.
    counts: Box<[Count]>,
}

impl Default for ErrorCounts {
    fn default() -> Self {
        Self { counts: (0..PREFIX_COUNT_MAX).map(|_| Count::default()).collect() }
    }
}

impl ErrorCounts {
    /// Counts one error. Only the owning core calls this.
    ///
    /// # Complexity
    /// O(N) with N words known so far: few, and the common ones come early.
    pub fn add(&self, prefix: &str) {
        let prefix = prefix.get(..PREFIX_BYTES_MAX).unwrap_or(prefix);
        for slot in &self.counts {
            // The owning core is the only one that sets it.
            let known = slot.prefix.get_or_init(|| prefix.into());
            if **known == *prefix {
                return slot.count.add(1);
            }
        }
    }

    /// The words seen and how often; those reset to zero are left out.
    pub fn each(&self) -> impl Iterator<Item = (&str, u64)> {
        let known = self.counts.iter().map_while(|c| Some((&**c.prefix.get()?, c.count.get())));
        known.filter(|(_, count)| *count > 0)
    }

    /// Sets all counts to zero.
    pub fn reset(&self) {
        self.counts.iter().for_each(|c| c.count.set(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_word_until_the_table_is_full() {
        let errors = ErrorCounts::default();
        (0..3).for_each(|_| errors.add("ERR"));
        errors.add("NOAUTH");
        assert_eq!(errors.each().collect::<Vec<_>>(), [("ERR", 3), ("NOAUTH", 1)]);
        (0..500).for_each(|i| errors.add(&format!("E{i}")));
        assert_eq!(errors.each().count(), PREFIX_COUNT_MAX);
        errors.reset();
        assert_eq!(errors.each().count(), 0);
    }
}
