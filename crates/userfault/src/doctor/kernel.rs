//! Shared memory, and what only the kernel has: MOVE, minor faults, asynchronous protection, events.

use std::thread;
use std::time::Duration;

use userfault_client::abi::{ContinueModes, CopyModes, MoveModes};
use userfault_client::{
    Errno, Event, FaultKind, Features, Region as _, RegisterModes, Shared as _, Stopped, Uffd as _, UffdError, Wait,
    WriteProtect,
};
use userfault_linux::{self as linux, trial};
use userfault_memory::byte_in_child;

use super::faults::{answered, fault_of, next};
use super::pages::{are_numbers, number};
use super::reason::{Stop, errno_of, no_thread, right};
use super::{Attempt, Column};
use crate::either::Either;
use crate::shared::FileRegion;
use crate::uffd::Uffd;

/// Between two looks at whether a thread is done.
const GLANCE: Duration = Duration::from_millis(1);

/// Opens with a feature, which all but one only the linux provider has so far.
fn open(attempt: &Attempt<'_>, feature: Features) -> Result<Uffd, Stop> {
    Ok(attempt.column.builder().require(feature).open()?)
}

fn linux(uffd: &Uffd) -> Result<&linux::Uffd, Stop> {
    match uffd.as_either() {
        Either::Linux(uffd) => Ok(uffd),
        Either::Process(_) => {
            let (operation, provider) = ("operation of that kind", uffd.provider());
            Err(UffdError::Unsupported { operation, provider }.into())
        }
    }
}

/// The pages of a region with their numbers in them.
fn numbers(pages: usize, page_size: usize) -> Vec<u8> {
    (0..pages).flat_map(|page| vec![number(page); page_size]).collect()
}

pub(super) fn move_pages(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = open(attempt, Features::MOVE)?;
    let uffd = linux(&uffd)?;
    let (from, to) = (uffd.map(2, RegisterModes::MISSING)?, uffd.map(2, RegisterModes::MISSING)?);
    from.copy(0, &numbers(2, from.page_size()))?.complete()?;
    let mut window = from.window(0..2)?;
    for page in 0..2 {
        move_one(&to, &mut window, page)?;
    }
    right(are_numbers(to.window(0..2)?.as_ref(), to.page_size()), "pages have other bytes than were moved")?;
    // Only what is missing can be filled.
    right(from.zeropage(0..2)?.complete().is_ok(), "moved pages are still where they were")
}

/// While another thread forks, its child may have the page, too, until that is written; such a page is not moved.
fn move_one(to: &linux::Region, window: &mut linux::Window, page: usize) -> Result<(), Stop> {
    const FORKS: usize = 100;
    let mut moved = Ok(0);
    for _ in 0..FORKS {
        if let Some(byte) = window.as_mut().get_mut(page * to.page_size()) {
            *byte = number(page);
        }
        let progress = to.move_from(page, window, page..page + 1, MoveModes::NONE)?;
        moved = progress.complete();
        if progress.stopped_by != Some(Stopped::Other(Errno::EBUSY)) {
            break;
        }
    }
    moved?;
    Ok(())
}

fn end(region: &FileRegion) {
    // Whoever sleeps there goes on. If that is refused, nothing else would help.
    let _refused = region.unregister(0..region.pages());
}

/// Page 0 of a file in memory, touched by a load; sees the fault, answers, and compares every byte.
fn shared_fault(
    uffd: &Uffd,
    region: &FileRegion,
    kind: FaultKind,
    fill: impl FnOnce(&[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let page = numbers(1, region.page_size());
    let shared = region.shared(0..1)?;
    let answer = || {
        let fault = fault_of(&next(|wait, events| uffd.read(wait, events))?)?;
        fill(&page)?;
        right(fault.kind == kind, "the load raised another kind of fault")
    };
    let differs = answered(|| end(region), || shared.compare(0, &page), answer)?;
    right(differs.is_none(), "the page has other bytes than it was given")
}

pub(super) fn missing_shared(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = open(attempt, Features::MISSING_SHMEM)?;
    let region = uffd.map_shared(1)?;
    shared_fault(&uffd, &region, FaultKind::Missing, |page| {
        region.copy(0, page)?.complete()?;
        Ok(())
    })
}

pub(super) fn minor(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = open(attempt, Features::MINOR_SHMEM)?;
    let region = linux(&uffd)?.map_shared(1, RegisterModes::MINOR)?;
    region.populate(0, &numbers(1, region.page_size()))?;
    shared_fault(&uffd, &Either::Linux(region.clone()), FaultKind::Minor, |_| {
        region.continue_pages(0..1, ContinueModes::NONE)?.complete()?;
        Ok(())
    })
}

pub(super) fn wp_shared(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = open(attempt, Features::WP_HUGETLBFS_SHMEM)?;
    let uffd = linux(&uffd)?;
    let region = uffd.map_shared(1, RegisterModes::MISSING | RegisterModes::WP)?;
    let mut page = numbers(1, region.page_size());
    region.copy(0, &page, CopyModes::WP)?.complete()?;
    let shared = region.shared(0..1)?;
    let answer = || {
        let fault = fault_of(&next(|wait, events| uffd.read(wait, events))?)?;
        region.writeprotect(0..1, WriteProtect::Lift)?;
        right(fault.kind == FaultKind::WriteProtect, "the write raised another kind of fault")
    };
    answered(|| end(&Either::Linux(region.clone())), || shared.write(8, &[200]), answer)?;
    page.iter_mut().skip(8).take(1).for_each(|byte| *byte = 200);
    right(shared.compare(0, &page).is_none(), "the page has other bytes than were written")
}

/// Exactly the pages that were written are found, and no write waits.
pub(super) fn wp_async(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = open(attempt, Features::WP_ASYNC)?;
    let uffd = linux(&uffd)?;
    let region = uffd.map(4, RegisterModes::MISSING | RegisterModes::WP)?;
    region.copy(0, &numbers(4, region.page_size()))?.complete()?;
    region.writeprotect(0..4, WriteProtect::Protect)?;
    region.shared(0..4)?.write(2 * region.page_size() + 8, &[200]);
    let written = region.take_written(0..4)?;
    right(written.len() == 1 && written.contains(&(2..3)), "other pages are found than were written")?;
    right(region.written(0..4)?.is_empty(), "a page is found that was not written since")
}

/// A child touches a missing page, which is answered through the context that the event brings.
///
/// For a process of its own: whoever else forks meanwhile, holding the locks of malloc, would wait for this to read,
/// and this for malloc.
pub(super) fn fork(column: Column) -> Result<(), Stop> {
    let uffd = column.builder().require(Features::EVENT_FORK).open()?;
    let linux = linux(&uffd)?;
    let region = linux.map(1, RegisterModes::MISSING)?;
    let window = region.window(0..1)?;
    let page = numbers(1, region.page_size());
    let (mut child, mut faults) = (None, Vec::new());
    let touch = || window.as_ref().first().map(byte_in_child);
    let seen = while_reading(linux, touch, |event| {
        match event {
            Some(Event::Fork(forked)) => child = Some(forked.into_foreign()?),
            Some(_) => return Err(Stop::Wrong("another message came than that of a fork".to_owned())),
            None => {}
        }
        let Some(child) = &child else { return Ok(()) };
        let answered = faults.len();
        child.read(Wait::Never, &mut faults)?;
        for fault in faults.iter().skip(answered) {
            child.copy(fault_of(fault)?.address, &page, CopyModes::NONE)?.complete()?;
        }
        Ok(())
    })?;
    if let Some(Err(error)) = &seen
        && faults.is_empty()
    {
        let remedy = "raise the limit of processes (ulimit -u), or allow clone";
        return Err(Stop::System("start a process", errno_of(error), remedy.to_owned()));
    }
    let is_told = matches!(faults[..], [Event::Fault(fault)] if region.page_at(fault.address) == Some(0));
    right(is_told, "the child's fault was not told through the context that came with the fork")?;
    right(matches!(seen, Some(Ok(seen)) if seen == number(0)), "the child saw another byte than it was given")?;
    right(region.zeropage(0..1)?.complete().is_ok(), "the parent's page was filled with the child's")
}

/// Runs `change` in a thread, and reads until it is done, whatever fails: what it waits for may be that.
///
/// `look` is called with each event, and without one now and then.
fn while_reading<T: Send>(
    uffd: &linux::Uffd,
    change: impl FnOnce() -> T + Send,
    mut look: impl FnMut(Option<Event<linux::Forked>>) -> Result<(), Stop>,
) -> Result<T, Stop> {
    thread::scope(|scope| {
        let changer = thread::Builder::new().spawn_scoped(scope, change).map_err(|error| no_thread(&error))?;
        let mut looked = Ok(());
        let mut events = Vec::new();
        loop {
            let is_finished = changer.is_finished();
            let read = uffd.read(if is_finished { Wait::Never } else { Wait::AtMost(GLANCE) }, &mut events);
            looked = looked.and(read.map(drop).map_err(Stop::from));
            for event in events.drain(..).map(Some).chain([None]) {
                let result = look(event);
                looked = looked.and(result);
            }
            if is_finished {
                break;
            }
        }
        looked?;
        changer.join().map_err(|_| Stop::Wrong("the thread that changed memory panicked".to_owned()))
    })
}

/// What was read while `change` was done.
fn events_of<T: Send>(
    uffd: &linux::Uffd,
    change: impl FnOnce() -> T + Send,
) -> Result<(T, Vec<Event<linux::Forked>>), Stop> {
    let mut events = Vec::new();
    let changed = while_reading(uffd, change, |event| {
        events.extend(event);
        Ok(())
    })?;
    Ok((changed, events))
}

pub(super) fn event_layout(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = open(attempt, Features::EVENT_REMAP | Features::EVENT_REMOVE | Features::EVENT_UNMAP)?;
    let linux = linux(&uffd)?;
    let region = linux.map(2, RegisterModes::MISSING)?;
    let mut window = region.window(0..2)?;
    let (discarded, removal) = events_of(linux, || region.discard(&mut window, 1..2))?;
    discarded?;
    let page = region.page_size() as u64;
    let removed = region.base() as u64 + page..region.base() as u64 + 2 * page;
    let is_told = matches!(removal[..], [Event::Remove { start, end }] if removed == (start..end));
    right(is_told, &format!("a discard was told as {removal:?}"))?;
    let (moved, changes) = events_of(linux, || trial::move_and_unmap(linux))?;
    let moved = moved?;
    // What is moved is unmapped where it was, and is told so, too.
    let [Event::Remap { from, to, len }, Event::Unmap { start: old, .. }, Event::Unmap { start, end }] = changes[..]
    else {
        return Err(Stop::Wrong(format!("a move and an unmapping were told as {changes:?}")));
    };
    right((from, to, len) == (moved.from, moved.to, moved.len), "REMAP names other addresses")?;
    right((old, start, end) == (from, to, to + len), "UNMAP names other addresses")
}
