//! Who sleeps in a fault, as far as a provider can know.
//!
//! For the question "why does my program hang": a monitor that lost a message, or died, leaves threads asleep
//! for ever, perhaps inside malloc. What nobody knows is `None`, never a guess.
//!
//! Kernel counterpart: `/proc/PID/task/TID/wchan`, and the counts of `fdinfo`.

use core::fmt;
use core::time::Duration;

use crate::FaultKind;

/// What has become of a sleeper's message.
///
/// Example: [`Sleeper`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// Nobody has read it yet.
    Unread,
    /// It was read; the answer is still to come.
    Read,
    /// There is none: the page is being changed, and the sleep ends with that.
    Nobody,
}

/// A thread asleep in a fault, as it was when it was looked at.
///
/// # Examples
///
/// ```
/// use userfault_client::{Place, Sleeper, Told};
///
/// let mut sleeper = Sleeper::default();
/// sleeper.thread = Some(1234);
/// sleeper.told = Some(Told::Read);
/// let place = Place { base: 0x7000, page: 17 };
/// assert_eq!(
///     sleeper.describe("loader", Some(place)).to_string(),
///     "thread 1234 (loader) sleeps, page 17 of the region at 0x7000: message read, not answered"
/// );
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sleeper {
    /// Its id, as `gettid(2)` answers it.
    pub thread: Option<u32>,
    /// What it touched: the exact byte where that is known, else the first of the page.
    pub address: Option<u64>,
    /// How long this sleep has lasted, or, where only that is known, how long ago its message was read.
    pub asleep_for: Option<Duration>,
    /// Its message.
    pub told: Option<Told>,
    /// What it waits for.
    pub kind: Option<FaultKind>,
}

impl Sleeper {
    /// The sentence about it, with the thread's name and the page's place in its region if they are known.
    ///
    /// Printing it allocates nothing.
    #[must_use]
    pub const fn describe<'a>(&'a self, name: &'a str, place: Option<Place>) -> impl fmt::Display + 'a {
        Sentence { sleeper: self, name, place }
    }
}

/// Where a page lies.
///
/// Example: [`Sleeper`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address of the region's first byte.
    pub base: u64,
    /// The page, counted from there.
    pub page: u64,
}

struct Sentence<'a> {
    sleeper: &'a Sleeper,
    name: &'a str,
    place: Option<Place>,
}

impl fmt::Display for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe("", None).fmt(f)
    }
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sleeper { thread, address, asleep_for, told, kind } = *self.sleeper;
        match thread {
            Some(thread) => write!(f, "thread {thread}")?,
            None => f.write_str("a thread")?,
        }
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        f.write_str(" sleeps")?;
        if let Some(time) = asleep_for {
            write!(f, " since {:.1} s", time.as_secs_f64())?;
        }
        if let Some(address) = address {
            write!(f, " at {address:#x}")?;
        }
        if let Some(Place { base, page }) = self.place {
            write!(f, ", page {page} of the region at {base:#x}")?;
        }
        f.write_str(match kind {
            Some(FaultKind::Missing) => ", missing",
            Some(FaultKind::WriteProtect) => ", write-protected",
            Some(FaultKind::Minor) => ", not mapped",
            None => "",
        })?;
        f.write_str(match told {
            Some(Told::Unread) => ": message not read",
            Some(Told::Read) => ": message read, not answered",
            Some(Told::Nobody) => ": until a change of its page ends",
            None => ": whether its message was read is not known",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_is_known_and_nothing_else() {
        let known = Sleeper {
            thread: Some(1234),
            address: Some(0x7f00_0001_1008),
            asleep_for: Some(Duration::from_millis(3200)),
            told: Some(Told::Read),
            kind: Some(FaultKind::Missing),
        };
        let place = Some(Place { base: 0x7f00_0000_0000, page: 17 });
        for (sentence, expected) in [
            (
                known.describe("loader", place).to_string(),
                "thread 1234 (loader) sleeps since 3.2 s at 0x7f0000011008, page 17 of the region at 0x7f0000000000, \
                 missing: message read, not answered",
            ),
            (
                Sleeper { told: Some(Told::Unread), kind: Some(FaultKind::WriteProtect), ..known }.to_string(),
                "thread 1234 sleeps since 3.2 s at 0x7f0000011008, write-protected: message not read",
            ),
            (
                Sleeper { thread: Some(5), told: Some(Told::Nobody), ..Sleeper::default() }.to_string(),
                "thread 5 sleeps: until a change of its page ends",
            ),
            (Sleeper::default().to_string(), "a thread sleeps: whether its message was read is not known"),
        ] {
            assert_eq!(sentence, expected);
        }
    }
}
