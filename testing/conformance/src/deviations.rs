//! `spec/deviations.txt`, as the suite reads it.

use std::sync::LazyLock;

use crate::place::Kind;

const TEXT: &str = include_str!("../../../spec/deviations.txt");

/// One excuse: a rule, and the places where something else is done.
#[derive(Debug)]
pub struct Deviation {
    /// The rule that does not hold.
    pub rule: &'static str,
    places: &'static str,
}

static ALL: LazyLock<Vec<Deviation>> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Deviation { rule: words.next()?, places: words.next()? })
        })
        .collect()
});

/// All of them, in the file's order.
#[must_use]
pub fn all() -> &'static [Deviation] {
    &ALL
}

impl Deviation {
    /// Whether it applies at such a place.
    #[must_use]
    pub fn applies_at(&self, kind: Kind) -> bool {
        self.places.split(',').any(|place| place == kind.word())
    }
}

/// Whether `rule` is departed from at such a place.
#[must_use]
pub fn departs(rule: &str, kind: Kind) -> bool {
    all().iter().any(|deviation| deviation.rule == rule && deviation.applies_at(kind))
}
