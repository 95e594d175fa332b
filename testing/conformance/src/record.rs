//! What happened, step by step, and how two records differ.

use std::fmt::Write as _;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was done.
    pub call: String,
    /// What came of it.
    pub result: String,
    /// What changed besides: threads, and the counts of descriptors.
    pub effects: String,
    /// The rule that excuses a difference of results.
    pub excused_result: Option<&'static str>,
    /// The rule that excuses a difference of effects.
    pub excused_effects: Option<&'static str>,
}

/// The steps of a run, and what the scenario found wrong.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// In order.
    pub entries: Vec<Entry>,
    /// Results other than the specification says.
    pub failures: Vec<String>,
    /// Deviations that excused something, once for each time.
    pub excuses: Vec<&'static str>,
}

/// Whether two results are the same where one was seen with less detail: an inaccessible page may be
/// missing, marked or poisoned; one that nobody touched may be missing or full of zeros.
#[must_use]
pub fn agree(one: &str, two: &str) -> bool {
    let same = |one: &str, two: &str| {
        one == two
            || (one == "absent" && ["missing", "marked", "poisoned"].contains(&two))
            || (one == "untouched" && ["missing", "0x0"].contains(&two))
    };
    let (ones, twos): (Vec<&str>, Vec<&str>) = (one.split(", ").collect(), two.split(", ").collect());
    ones.len() == twos.len() && ones.iter().zip(twos).all(|(one, two)| same(one, two) || same(two, one))
}

impl Record {
    /// The first differences, readable; `None` if there are none.
    #[must_use]
    pub fn difference(&self, other: &Self, names: (&str, &str)) -> Option<String> {
        let mut text = String::new();
        let mut differences = 0;
        for number in 0..self.entries.len().max(other.entries.len()) {
            let pair = (self.entries.get(number), other.entries.get(number));
            let same = match pair {
                (Some(one), Some(two)) => {
                    let excused_result = one.excused_result.or(two.excused_result).is_some();
                    let excused_effects = one.excused_effects.or(two.excused_effects).is_some();
                    one.call == two.call
                        && (excused_result || agree(&one.result, &two.result))
                        && (excused_effects || one.effects == two.effects)
                }
                (None, _) | (_, None) => false,
            };
            let line = |entry: Option<&Entry>| entry.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            if same {
                let _ = writeln!(text, "    {}", line(pair.0));
            } else {
                differences += 1;
                let _ = writeln!(text, "  ! {:<10} {}\n  ! {:<10} {}", names.0, line(pair.0), names.1, line(pair.1));
            }
        }
        (differences > 0).then(|| format!("{differences} differences\n{text}"))
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.call, self.result)?;
        if self.effects.is_empty() { Ok(()) } else { write!(f, "   [{}]", self.effects) }
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entries.iter().try_for_each(|entry| writeln!(f, "    {entry}"))
    }
}
