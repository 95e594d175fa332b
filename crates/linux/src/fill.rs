//! From the answers of one fill after another to one [`Progress`].
//!
//! A fill that stops early says so in its result word and its errno together, and the two must not be
//! mixed up: the word may be a count, a negative error number, or not written at all. Here, and only
//! here, it is judged.
//!
//! 1. A word counts as progress only with `EAGAIN`, if it is a positive multiple of the page and not
//!    more than was asked for. Nothing else is ever added to an address.
//! 2. After progress the fill is asked again from there, so that the reason is the kernel's and not a
//!    guess. Each round does at least one page, so the rounds end.
//!
//! Kernel counterpart: the result words of `ioctl_userfaultfd(2)`.

use userfault_client::{Errno, Progress, Stopped};

use crate::sys::Answer;

/// Runs `once(done_bytes)` until all of `total` bytes are done or one call did nothing.
///
/// `stopped` names the reason for the first page that was not done.
pub(crate) fn run(
    total: u64,
    page_size: u64,
    stopped: impl Fn(Errno) -> Stopped,
    mut once: impl FnMut(u64) -> Answer,
) -> Progress {
    let mut done = 0;
    loop {
        let answer = once(done);
        let left = total - done;
        let stopped_by = match answer.result {
            Ok(()) => return Progress::all(pages(total, page_size)),
            Err(Errno::EAGAIN) => match progress(answer.word, left, page_size) {
                Some(bytes) if bytes == left => return Progress::all(pages(total, page_size)),
                Some(bytes) => {
                    done += bytes;
                    continue;
                }
                None => Stopped::EventPending,
            },
            Err(errno) => stopped(errno),
        };
        return Progress::stopped(pages(done, page_size), stopped_by);
    }
}

/// The bytes that `word` says were done, if that is what it says.
fn progress(word: i64, left: u64, page_size: u64) -> Option<u64> {
    let bytes = u64::try_from(word).ok()?;
    (bytes > 0 && bytes <= left && bytes.is_multiple_of(page_size)).then_some(bytes)
}

fn pages(bytes: u64, page_size: u64) -> usize {
    usize::try_from(bytes / page_size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::UNWRITTEN;

    const PAGE: u64 = 4096;
    const EAGAIN: i64 = -11;

    fn replay(total: u64, answers: &[(Result<(), Errno>, i64)]) -> (Progress, Vec<u64>) {
        let mut asked = Vec::new();
        let progress = run(total, PAGE, Stopped::from_errno, |done| {
            let (result, word) = answers[asked.len()];
            asked.push(done);
            Answer { result, word }
        });
        (progress, asked)
    }

    // spec: m/fill/result
    #[test]
    fn partial_progress_is_followed_by_a_call_that_learns_the_real_reason() {
        let again = Err(Errno::EAGAIN);
        for (why, answers, expected, asked) in [
            ("all at once", vec![(Ok(()), 16384)], Progress::all(4), vec![0]),
            (
                "two, then one that is there",
                vec![(again, 8192), (Err(Errno::EEXIST), -17)],
                Progress::stopped(2, Stopped::AlreadyPresent),
                vec![0, 8192],
            ),
            ("two, then the rest", vec![(again, 8192), (Ok(()), 8192)], Progress::all(4), vec![0, 8192]),
            (
                "one by one, then an event",
                vec![(again, 4096), (again, 4096), (again, EAGAIN)],
                Progress::stopped(2, Stopped::EventPending),
                vec![0, 4096, 8192],
            ),
        ] {
            assert_eq!(replay(4 * PAGE, &answers), (expected, asked), "{why}");
        }
    }

    // spec: m/fill/pending-first
    #[test]
    fn a_word_that_is_no_count_is_never_added_to_anything() {
        for word in [EAGAIN, 0, -1, UNWRITTEN, i64::MAX, 1, 4095, 4097, 5 * 4096, -4096] {
            let (progress, asked) = replay(4 * PAGE, &[(Err(Errno::EAGAIN), word)]);
            assert_eq!(progress, Progress::stopped(0, Stopped::EventPending), "word {word}");
            assert_eq!(asked, [0]);
        }
    }

    #[test]
    fn with_another_error_the_word_is_not_looked_at() {
        for word in [-17, 4096, UNWRITTEN] {
            let (progress, _) = replay(4 * PAGE, &[(Err(Errno::EINVAL), word)]);
            assert_eq!(progress, Progress::stopped(0, Stopped::Other(Errno::EINVAL)));
        }
    }
}
