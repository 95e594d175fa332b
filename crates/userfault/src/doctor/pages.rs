//! Operations whose faults a monitor answers, or that have none.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;

use userfault_client::{Errno, Region as _, RegisterModes, Shared as _, Uffd as _};
use userfault_process::Protocol;

use super::Attempt;
use super::reason::{Stop, right};
use crate::source::SourceError;

/// Fills pages with their number, from 1 on.
pub(super) fn numbers(pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
    let size = into.len() / pages.len();
    for (page, bytes) in pages.zip(into.chunks_exact_mut(size)) {
        bytes.fill(number(page));
    }
    Ok(())
}

/// What [`numbers`] puts into a page.
pub(super) fn number(page: usize) -> u8 {
    u8::try_from(page % 251 + 1).unwrap_or(1)
}

/// Whether these pages, of `page_size` each, hold their numbers.
pub(super) fn are_numbers(bytes: &[u8], page_size: usize) -> bool {
    bytes.chunks(page_size).enumerate().all(|(page, bytes)| bytes.iter().all(|byte| *byte == number(page)))
}

pub(super) fn missing(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(8, RegisterModes::MISSING)?;
    let monitor = uffd.serve(&region, numbers)?;
    let window = region.window(0..8)?;
    let good = are_numbers(window.as_ref(), region.page_size());
    let faults = monitor.join()?.faults;
    right(good, "pages have other bytes than were filled")?;
    right(faults == 8, "not each of the pages raised a fault")
}

pub(super) fn zeropage(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(2, RegisterModes::MISSING)?;
    region.zeropage(0..2)?.complete()?;
    right(region.window(0..2)?.as_ref().iter().all(|byte| *byte == 0), "pages are not zero")
}

pub(super) fn discard(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(1, RegisterModes::MISSING)?;
    let monitor = uffd.serve(&region, numbers)?;
    let shared = region.shared(0..1)?;
    let page = vec![number(0); region.page_size()];
    let before = shared.compare(0, &page);
    region.discard_shared(&shared, 0..1)?;
    let after = shared.compare(0, &page);
    right((before, after) == (None, None), "pages have other bytes than were filled")?;
    right(monitor.join()?.faults == 2, "a discarded page raised no fault")
}

pub(super) fn unregister(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(3, RegisterModes::MISSING)?;
    region.unregister(1..2)?;
    right(region.window(1..2)?.as_ref().iter().all(|byte| *byte == 0), "an unregistered page is not zero")?;
    let monitor = uffd.serve(&region, numbers)?;
    let page = region.window(2..3)?.as_ref().iter().all(|byte| *byte == number(2));
    right(page && monitor.join()?.faults == 1, "the page behind it raised no fault")
}

pub(super) fn system_call(attempt: &Attempt<'_>) -> Result<(), Stop> {
    const CALL: &str = "read(2) into a missing page";
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(1, RegisterModes::MISSING)?;
    let monitor = uffd.serve(&region, numbers)?;
    let mut window = region.window(0..1)?;
    let failed = |tried, remedy: &'static str| {
        move |error: std::io::Error| {
            Stop::System(tried, Errno::from_raw(error.raw_os_error().unwrap_or(0)), remedy.to_owned())
        }
    };
    let mut zeros =
        File::open("/dev/zero").map_err(failed("open /dev/zero", "make the device: `mknod /dev/zero c 1 5`"))?;
    let read = zeros.read(window.as_mut().get_mut(..16).unwrap_or_default());
    let remedy = "touch the pages first (Region::populate), or use the linux provider with kernel faults";
    let read = read.map_err(failed(CALL, remedy))?;
    let faults = monitor.join()?.faults;
    let (start, rest) = window.as_ref().split_at(16.min(window.as_ref().len()));
    let good = start.iter().all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == number(0));
    right(good && read == 16 && faults == 1, "the call did not wait for its page")
}

pub(super) fn original(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().protocol(Protocol::Original { fills: false }).open()?;
    let region = uffd.map(2, RegisterModes::MISSING)?;
    let monitor = uffd.serve(&region, numbers)?;
    let good = are_numbers(region.window(0..2)?.as_ref(), region.page_size());
    right(good && monitor.join()?.faults == 2, "pages have other bytes than were filled")
}
