//! Small charts of text, as LATENCY GRAPH shows them: one column per sample, a label of vertical
//! letters below it. The form is that of Redis, so that tools which show it find what they expect.

use std::fmt::Write;

/// Marks that fill a row by thirds, from below.
const FILL: [char; 3] = ['_', 'o', '#'];
/// A cell below the top of its column.
const BODY: char = '|';

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// How high.
    pub value: u64,
    /// What stands below.
    pub label: String,
}

/// Draws columns in `row_count` rows, at most `width` columns side by side; the rest below.
///
/// # Complexity
/// O(N) with N columns.
pub fn render(columns: &[Column], width: usize, row_count: usize) -> String {
    let low = columns.iter().map(|c| c.value).min().unwrap_or(0);
    let high = columns.iter().map(|c| c.value).max().unwrap_or(0);
    let mut text = String::new();
    for (i, part) in columns.chunks(width.max(1)).enumerate() {
        if i > 0 {
            text.push('\n');
        }
        bars(&mut text, part, low, (high - low).max(1), row_count);
        labels(&mut text, part);
    }
    text
}

fn bars(text: &mut String, part: &[Column], low: u64, range: u64, row_count: usize) {
    let step_count = FILL.len() * row_count;
    for row in 0..row_count {
        let below = (row_count - row - 1) * FILL.len();
        for column in part {
            // In floating point as Redis does it, so that columns round alike.
            let share = (column.value - low) as f64 * step_count as f64 / range as f64;
            let step = (share as usize).min(step_count - 1);
            text.push(match step.checked_sub(below) {
                None => ' ',
                Some(third) => FILL.get(third).copied().unwrap_or(BODY),
            });
        }
        text.push('\n');
    }
}

fn labels(text: &mut String, part: &[Column]) {
    let height = part.iter().map(|c| c.label.len()).max().unwrap_or(0);
    let _ = writeln!(text, "{}", " ".repeat(part.len()));
    for row in 0..height {
        text.extend(part.iter().map(|c| c.label.chars().nth(row).unwrap_or(' ')));
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(values: &[(u64, &str)]) -> Vec<Column> {
        values.iter().map(|&(value, label)| Column { value, label: label.to_owned() }).collect()
    }

    #[test]
    fn render_of_four_samples_is_what_redis_draws() {
        let samples = columns(&[(20, "4s"), (1050, "3s"), (1500, "1s"), (1010, "0s")]);
        let want = "  # \n #|#\n |||\n_|||\n    \n4310\nssss\n";
        assert_eq!(render(&samples, 80, 4), want);
    }

    #[test]
    fn render_of_equal_samples_is_a_line() {
        let samples = columns(&[(7, "12m"), (7, "1d")]);
        assert_eq!(render(&samples, 80, 2), "  \n__\n  \n11\n2d\nm \n");
    }

    #[test]
    fn render_of_more_samples_than_columns_goes_on_below() {
        let samples = columns(&[(0, "a"), (3, "b"), (1, "c")]);
        assert_eq!(render(&samples, 2, 1), "_#\n  \nab\n\no\n \nc\n");
    }
}
