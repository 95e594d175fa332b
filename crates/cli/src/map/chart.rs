//! Times as a picture: one row for each doubling, bars on a logarithmic scale.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;

/// Boxes of the longest bar where nobody says how wide the terminal is.
const WIDTH: u32 = 40;
/// What a row has beside its bar, with a count of eight digits.
const BESIDE: u32 = 33;

/// Boxes of the longest bar on this terminal.
pub(crate) fn width() -> u32 {
    let size = terminal_size::terminal_size_of(std::io::stdout());
    size.map_or(WIDTH, |(columns, _rows)| u32::from(columns.0).saturating_sub(BESIDE).clamp(8, 2 * WIDTH))
}

/// Draws how many values lie between each power of two and the next, with bars of at most `width` boxes.
pub(crate) fn draw(histogram: &Histogram<u64>, width: u32) -> Result<String, fmt::Error> {
    let mut rows = [0_u64; 64];
    for value in histogram.iter_recorded() {
        if let Some(row) = value.value_iterated_to().checked_ilog2().and_then(|row| rows.get_mut(row as usize)) {
            *row += value.count_at_value();
        }
    }
    let most = rows.iter().copied().max().unwrap_or(0);
    let first = rows.iter().position(|count| *count > 0).unwrap_or(0);
    let last = rows.iter().rposition(|count| *count > 0).unwrap_or(0);
    let mut picture = String::new();
    for (row, count) in rows.iter().enumerate().take(last + 1).skip(first) {
        let from = 1_u64 << row;
        let to = from.saturating_mul(2);
        writeln!(picture, "  {:>8} .. {:<8} {} {count}", time(from), time(to), bar(*count, most, width))?;
    }
    Ok(picture)
}

/// As long as the logarithm of `count` is of that of `most`; one box for a single value.
fn bar(count: u64, most: u64, width: u32) -> String {
    let length = (count as f64 + 1.0).ln() / (most as f64 + 1.0).ln() * f64::from(width);
    (0..width).map(|at| if f64::from(at) < length { '█' } else { ' ' }).collect()
}

/// Nanoseconds for people.
pub(crate) fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanoseconds as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanoseconds as f64 / 1e6),
        _ => format!("{:.1} s", nanoseconds as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{draw, time};
    use crate::map::reader::histogram;

    #[test]
    fn each_doubling_between_the_least_and_the_greatest_has_a_row() {
        let mut times = histogram().unwrap();
        for (value, count) in [(1024, 1000), (1500, 1), (5000, 1)] {
            times.record_n(value, count).unwrap();
        }
        let picture = draw(&times, 40).unwrap();
        let rows: Vec<&str> = picture.lines().collect();
        assert_eq!(rows.len(), 3, "{picture}");
        let boxes = |row: &str| row.matches('█').count();
        assert_eq!([boxes(rows[0]), boxes(rows[1])], [40, 0]);
        assert!((1..10).contains(&boxes(rows[2])), "{picture}");
        assert!(rows[0].ends_with(" 1001") && rows[1].ends_with(" 0") && rows[2].ends_with(" 1"), "{picture}");
    }

    #[test]
    fn nothing_is_drawn_without_an_end() {
        assert_eq!(draw(&histogram().unwrap(), 40).unwrap().lines().count(), 1);
    }

    #[test]
    fn times_have_a_unit() {
        for (nanoseconds, text) in
            [(0, "0 ns"), (999, "999 ns"), (1000, "1.0 µs"), (2_500_000, "2.5 ms"), (60_000_000_000, "60.0 s")]
        {
            assert_eq!(time(nanoseconds), text);
        }
    }
}
