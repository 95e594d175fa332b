//! How the work is cut, and whether it fits.

use std::num::NonZeroUsize;
use std::ops::Range;

use userfault::FileSource;

use crate::args::{Answer, Map};
use crate::fail::Unusable;
use crate::map::order::Order;
use crate::memory;
use crate::size::Size;

/// Threads beyond this only take memory.
const MOST_MONITORS: usize = 256;

/// What is read by whom, and how much of it may be in memory. Windows are runs of pages.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) page_size: usize,
    pub(crate) bytes: u64,
    pub(crate) pages: usize,
    pub(crate) window: usize,
    pub(crate) windows: usize,
    pub(crate) threads: usize,
    pub(crate) monitors: usize,
    pub(crate) answer: Answer,
    pub(crate) order: Order,
    pub(crate) resident: Size,
    /// Pages that one reader may leave in memory.
    pub(crate) quota: usize,
}

impl Plan {
    pub(crate) fn new(map: &Map, source: &FileSource, page_size: usize) -> Result<Self, Unusable> {
        let pages = source.pages(page_size);
        let window = map.window.get().min(pages.max(1));
        let windows = pages.div_ceil(window);
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // More readers than windows would have nothing to do.
        let threads = map.threads.map_or_else(cores, NonZeroUsize::get).min(windows.max(1));
        // More would find nothing to do.
        let monitors = map.monitors.get().min(windows.max(1)).min(MOST_MONITORS);
        // Each has a window to fill.
        let fillers = match map.answer {
            Answer::Monitor => monitors,
            Answer::Inline => monitors + threads,
        };
        let resident = resident(map)?;
        let quota = quota(resident, threads, fillers, window, page_size).ok_or_else(|| {
            let need = Size(least(threads, fillers, window, page_size));
            let inline = if map.answer == Answer::Inline { " and each reader that answers itself" } else { "" };
            let given = match map.resident {
                Some(size) => format!("--resident {size}"),
                None => format!("a quarter of the memory that is free, {resident},"),
            };
            Unusable(format!(
                "{given} is too small: {threads} readers and {monitors} monitors with windows of {window} pages of \
                 {page_size} bytes need {need} (for each reader a window in memory and one to compare it with, for \
                 each monitor{inline} one to fill): give --resident {} or more, or smaller --threads, --monitors or --window",
                need.0
            ))
        })?;
        let order = Order::new(map.order, windows as u64, map.seed());
        let bytes = source.len_bytes();
        let answer = map.answer;
        Ok(Self { page_size, bytes, pages, window, windows, threads, monitors, answer, order, resident, quota })
    }

    /// The pages of the `index`-th window to be read.
    pub(crate) fn window_at(&self, index: usize) -> Range<usize> {
        // Below `windows`, so it fits.
        let window = usize::try_from(self.order.at(index as u64)).unwrap_or(0);
        window * self.window..((window + 1) * self.window).min(self.pages)
    }
}

fn resident(map: &Map) -> Result<Size, Unusable> {
    if let Some(size) = map.resident {
        return Ok(size);
    }
    let free = memory::free_bytes().ok_or_else(|| {
        Unusable("/proc/meminfo does not tell how much memory is free; give --resident SIZE".to_owned())
    })?;
    Ok(Size(free / 4))
}

/// The least memory that suffices, in bytes.
fn least(threads: usize, fillers: usize, window: usize, page_size: usize) -> u64 {
    let windows = threads.saturating_mul(2).saturating_add(fillers);
    (windows as u64).saturating_mul(window as u64).saturating_mul(page_size as u64)
}

/// What is left for each reader after all buffers, in pages; `None` if that is less than a window.
fn quota(resident: Size, threads: usize, fillers: usize, window: usize, page_size: usize) -> Option<usize> {
    let window_bytes = (window as u64).checked_mul(page_size as u64)?;
    let buffers = window_bytes.checked_mul(threads.checked_add(fillers)? as u64)?;
    let pages = resident.0.checked_sub(buffers)? / page_size as u64 / threads as u64;
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    (pages >= window).then_some(pages)
}

#[cfg(test)]
mod tests {
    use super::{least, quota};
    use crate::size::Size;

    #[test]
    fn the_least_memory_is_enough_and_a_byte_less_is_not() {
        for (threads, monitors, window) in [(1, 1, 1), (8, 1, 16), (3, 2, 5)] {
            let need = least(threads, monitors, window, 4096);
            assert_eq!(quota(Size(need), threads, monitors, window, 4096), Some(window));
            assert_eq!(quota(Size(need - 1), threads, monitors, window, 4096), None);
        }
    }

    #[test]
    fn absurd_numbers_are_too_much_and_not_an_overflow() {
        assert_eq!(quota(Size(u64::MAX), usize::MAX, 1, usize::MAX, 4096), None);
        assert_eq!(least(usize::MAX, usize::MAX, usize::MAX, 4096), u64::MAX);
    }
}
