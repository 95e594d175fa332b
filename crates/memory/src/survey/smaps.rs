//! Reads the kernel's list of mappings, one by one.
//!
//! Into a buffer outside of the malloc heap: the heap may be what is looked at, and must not grow meanwhile.
//!
//! Kernel counterpart: `/proc/PID/smaps`, `proc_pid_smaps(5)`.

use std::io::{self, Read};
use std::ops::Range;

use crate::arena::Zeroed;

/// Longer than any line: those with paths are the longest.
const BUFFER: usize = 1 << 16;

/// One mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vma {
    pub(super) range: Range<usize>,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    pub(super) is_executable: bool,
    pub(super) is_shared: bool,
    /// A file is behind it.
    pub(super) is_file: bool,
    /// The kernel calls it the main thread's stack.
    pub(super) is_stack: bool,
    /// The kernel may back it with huge pages.
    pub(super) may_be_huge: bool,
    /// It has a protection key of its own.
    pub(super) has_key: bool,
    pub(super) flags: Flags,
}

/// Those of the kernel's two-letter flags that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    pub(super) const GROWS_DOWN: Self = Self(1 << 0);
    pub(super) const DEVICE: Self = Self(1 << 1);
    pub(super) const HUGE_PAGES: Self = Self(1 << 2);
    pub(super) const LOCKED: Self = Self(1 << 3);
    pub(super) const SHADOW_STACK: Self = Self(1 << 4);
    pub(super) const SEALED: Self = Self(1 << 5);
    pub(super) const REGISTERED: Self = Self(1 << 6);
    pub(super) const NOT_FOR_CHILDREN: Self = Self(1 << 7);

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn from_words(words: &[u8]) -> Self {
        let bits = words.split(|byte| *byte == b' ').map(|word| match word {
            b"gd" => Self::GROWS_DOWN.0,
            b"io" | b"pf" | b"mm" => Self::DEVICE.0,
            b"ht" => Self::HUGE_PAGES.0,
            b"lo" => Self::LOCKED.0,
            b"ss" => Self::SHADOW_STACK.0,
            b"sl" => Self::SEALED.0,
            b"dc" => Self::NOT_FOR_CHILDREN.0,
            b"um" | b"uw" | b"ui" => Self::REGISTERED.0,
            _ => 0,
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// The mappings of a process, in address order.
pub(super) struct Smaps<R> {
    lines: Lines<R>,
}

impl<R: Read> Smaps<R> {
    pub(super) fn new(text: R) -> io::Result<Self> {
        Ok(Self { lines: Lines::new(text)? })
    }

    /// The next mapping; `None` after the last.
    pub(super) fn next(&mut self) -> io::Result<Option<Vma>> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        let mut vma = header(line).ok_or_else(malformed)?;
        loop {
            // What the kernel says last of each.
            let line = self.lines.next()?.ok_or_else(malformed)?;
            let Some(at) = line.iter().position(|byte| *byte == b':') else { return Err(malformed()) };
            let (name, value) = line.split_at(at);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            match name {
                b"THPeligible" => vma.may_be_huge = value == b"1",
                b"ProtectionKey" => vma.has_key = value != b"0",
                b"VmFlags" => {
                    vma.flags = Flags::from_words(value);
                    return Ok(Some(vma));
                }
                // A mapping without flags, and the next one's first line: this kernel does not tell enough.
                _ if name.contains(&b'-') => return Err(malformed()),
                _ => {}
            }
        }
    }
}

fn malformed() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// `start-end perms offset device inode name`.
fn header(line: &[u8]) -> Option<Vma> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let range = words.next()?;
    let dash = range.iter().position(|byte| *byte == b'-')?;
    let (start, end) = (hex(range.get(..dash)?)?, hex(range.get(dash + 1..)?)?);
    let &[read, write, execute, sharing] = words.next()? else { return None };
    let inode = words.nth(2)?;
    let name = words.next().unwrap_or_default();
    Some(Vma {
        range: start..end,
        is_readable: read == b'r',
        is_writable: write == b'w',
        is_executable: execute == b'x',
        is_shared: sharing == b's',
        is_file: inode != b"0" || name.starts_with(b"/"),
        is_stack: name.starts_with(b"[stack"),
        ..Vma::default()
    })
}

pub(super) fn hex(digits: &[u8]) -> Option<usize> {
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Lines of a text that is longer than its buffer.
struct Lines<R> {
    text: R,
    buffer: Zeroed<u8>,
    /// What was read and not yet given out.
    rest: Range<usize>,
}

impl<R: Read> Lines<R> {
    fn new(text: R) -> io::Result<Self> {
        let buffer = Zeroed::new(BUFFER).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { text, buffer, rest: 0..0 })
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let found = self.buffer.get(self.rest.clone()).unwrap_or_default().iter().position(|byte| *byte == b'\n');
            if let Some(len) = found {
                let line = self.rest.start..self.rest.start + len;
                self.rest.start = line.end + 1;
                return Ok(self.buffer.get(line));
            }
            self.buffer.copy_within(self.rest.clone(), 0);
            self.rest = 0..self.rest.len();
            let room = self.buffer.get_mut(self.rest.end..).filter(|room| !room.is_empty()).ok_or_else(malformed)?;
            match self.text.read(room) {
                Ok(0) if self.rest.is_empty() => return Ok(None),
                Ok(0) => return Err(malformed()),
                Ok(count) => self.rest.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flags, Smaps, Vma};

    const TEXT: &[u8] = b"\
55628d268000-55628d26a000 r--p 00000000 fe:00 247030                     /usr/bin/a name
Size:                  8 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: rd mr mw me
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 
Size:               4096 kB
THPeligible:           1
ProtectionKey:         2
VmFlags: rd wr mr mw me ac lo gd
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
VmFlags: rd wr mr mw me gd ac
";

    #[test]
    fn every_mapping_is_read_with_what_matters_of_it() {
        // In pieces of every size, so that lines come in parts.
        for piece in [1, 7, 64, TEXT.len()] {
            let mut text = Smaps::new(Pieces { text: TEXT, piece }).unwrap();
            let file = text.next().unwrap().unwrap();
            assert!(file.is_file && file.is_readable && !file.is_writable && !file.is_shared && !file.may_be_huge);
            assert_eq!(file.range, 0x5562_8d26_8000..0x5562_8d26_a000);
            let plain = text.next().unwrap().unwrap();
            assert!(!plain.is_file && plain.is_writable && plain.may_be_huge && plain.has_key && !plain.is_stack);
            assert!(plain.flags.has(Flags::LOCKED) && plain.flags.has(Flags::GROWS_DOWN));
            assert!(!plain.flags.has(Flags::DEVICE) && !plain.flags.has(Flags::REGISTERED));
            let stack = text.next().unwrap().unwrap();
            assert!(stack.is_stack && stack.flags == Flags::GROWS_DOWN);
            assert_eq!(text.next().unwrap(), None);
        }
    }

    #[test]
    fn a_list_that_says_too_little_is_an_error_and_no_mapping() {
        for text in [
            "55-66 rw-p 0 00:00 0\nSize: 4 kB\n66-77 rw-p 0 00:00 0\nVmFlags: rd\n",
            "55-66 rw-p 0 00:00 0\nSize: 4 kB\n",
            "nonsense\n",
            "55-66 rw-p 0 00:00 0\nVmFlags: rd",
        ] {
            let mut smaps = Smaps::new(text.as_bytes()).unwrap();
            assert!(smaps.next().is_err(), "{text}");
        }
        assert_eq!(Smaps::new(&b""[..]).unwrap().next().unwrap(), None::<Vma>);
    }

    struct Pieces {
        text: &'static [u8],
        piece: usize,
    }

    impl std::io::Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let len = self.piece.min(into.len()).min(self.text.len());
            let (now, rest) = self.text.split_at(len);
            into[..len].copy_from_slice(now);
            self.text = rest;
            Ok(len)
        }
    }
}
