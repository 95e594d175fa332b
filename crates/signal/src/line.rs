//! A line for standard error, made and written without the allocator and without a lock.
//!
//! For reports about threads that may be asleep inside malloc, or inside `eprintln!`: a report that waits for
//! either would hang with them.
//!
//! Kernel counterpart: `printk` from any context.

use std::fmt::{Result as Written, Write};

use crate::sys;

const CAPACITY: usize = 400;

/// Text of limited length; what does not fit is cut off.
///
/// # Examples
///
/// ```
/// use std::fmt::Write;
/// use userfault_signal::Line;
///
/// let mut line = Line::new();
/// write!(line, "{} pages", 3)?;
/// assert_eq!(line.as_bytes(), b"3 pages");
/// line.print();
/// # Ok::<(), std::fmt::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Line {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Line {
    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; CAPACITY], len: 0 }
    }

    /// What was written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Writes it to standard error in one piece, with an end of line. Async-signal-safe.
    pub fn print(mut self) {
        let end = self.len.min(CAPACITY - 1);
        if let Some(last) = self.bytes.get_mut(end) {
            *last = b'\n';
        }
        sys::write_error(self.bytes.get(..=end).unwrap_or_default());
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> Written {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let mut fits = text.len().min(room.len());
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        for (place, byte) in room.iter_mut().zip(text.as_bytes().iter().take(fits)) {
            *place = *byte;
        }
        self.len += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_what_fits_and_cuts_between_characters() {
        let mut line = Line::new();
        assert!(write!(line, "{}ö", "x".repeat(CAPACITY - 1)).is_ok());
        assert_eq!(line.as_bytes(), "x".repeat(CAPACITY - 1).as_bytes());
        assert!(line.write_str("yz").is_ok());
        assert_eq!((line.as_bytes().len(), line.as_bytes().last()), (CAPACITY, Some(&b'y')));
    }
}
