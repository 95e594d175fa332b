//! Operations with one thread that faults, and this one, which reads of it and answers.

use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use userfault_client::{
    Errno, Event, Fault, FaultKind, Features, Region as _, RegisterModes, Shared as _, Uffd as _, UffdError, Wait,
    WriteProtect,
};

use super::Attempt;
use super::pages::number;
use super::reason::{Stop, no_thread, right};
use crate::either::Region;
use crate::uffd::{Forked, Uffd};

/// How long something that is about to happen is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const MODES: RegisterModes = RegisterModes::MISSING.union(RegisterModes::WP);

/// Lets nobody sleep for ever if an attempt ends early.
pub(super) struct Rescue<F: Fn()>(pub(super) F);

impl<F: Fn()> Drop for Rescue<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The next event, if it comes.
pub(super) fn next(
    read: impl FnOnce(Wait, &mut Vec<Event<Forked>>) -> Result<usize, UffdError>,
) -> Result<Event<Forked>, Stop> {
    // With room: while a thread forks, malloc may have to wait for this one.
    let mut events = Vec::with_capacity(32);
    read(Wait::AtMost(PATIENCE), &mut events)?;
    let mut events = events.into_iter();
    match (events.next(), events.next()) {
        (Some(event), None) => Ok(event),
        (None, _) => Err(Stop::Wrong("no message came".to_owned())),
        (Some(_), Some(_)) => Err(Stop::Wrong("more messages came than there were causes".to_owned())),
    }
}

pub(super) fn fault_of(event: &Event<Forked>) -> Result<Fault, Stop> {
    if let Event::Fault(fault) = event {
        return Ok(*fault);
    }
    Err(Stop::Wrong(format!("a message came that is no fault: {event:?}")))
}

/// Runs `touch` in a thread; `answer` is given the fault, and answers it. What `touch` found.
pub(super) fn answered<T: Send>(
    rescue: impl Fn(),
    touch: impl FnOnce() -> T + Send,
    answer: impl FnOnce() -> Result<(), Stop>,
) -> Result<T, Stop> {
    thread::scope(|scope| {
        let rescue = Rescue(rescue);
        let toucher = thread::Builder::new().spawn_scoped(scope, touch).map_err(|error| no_thread(&error))?;
        answer()?;
        let touched = toucher.join().map_err(|_| Stop::Wrong("the thread that touched panicked".to_owned()))?;
        drop(rescue);
        Ok(touched)
    })
}

fn end(region: &Region) {
    // Whoever sleeps there goes on. If that is refused, nothing else would help.
    let _refused = region.unregister(0..region.pages());
}

/// Writes a byte to page 0, which is protected and holds its number; sees that it raised a fault of that kind.
fn write_fault(uffd: &Uffd, region: &Region) -> Result<(), Stop> {
    let shared = region.shared(0..1)?;
    answered(
        || end(region),
        || shared.write(8, &[200]),
        || {
            let fault = fault_of(&next(|wait, events| uffd.read(wait, events))?)?;
            // Whatever it was, the writer is to go on.
            region.writeprotect(0..1, WriteProtect::Lift)?;
            right(fault.kind == FaultKind::WriteProtect && fault.write, "the write raised another kind of fault")
        },
    )?;
    let mut expected = vec![number(0); region.page_size()];
    expected.iter_mut().skip(8).take(1).for_each(|byte| *byte = 200);
    right(region.shared(0..1)?.compare(0, &expected).is_none(), "the page has other bytes than were written")
}

pub(super) fn writeprotect(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(1, MODES)?;
    region.copy(0, &vec![number(0); region.page_size()])?.complete()?;
    region.writeprotect(0..1, WriteProtect::Protect)?;
    write_fault(&uffd, &region)
}

pub(super) fn copy_protected(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(1, MODES)?;
    region.copy_protected(0, &vec![number(0); region.page_size()])?.complete()?;
    write_fault(&uffd, &region)
}

/// A missing page that is protected: the fault of a write says so, which it would not of a missing page.
pub(super) fn wp_unpopulated(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().require(Features::WP_UNPOPULATED).open()?;
    let region = uffd.map(1, RegisterModes::WP)?;
    region.writeprotect(0..1, WriteProtect::Protect)?;
    let shared = region.shared(0..1)?;
    let answer = || {
        let fault = fault_of(&next(|wait, events| uffd.read(wait, events))?)?;
        region.writeprotect(0..1, WriteProtect::Lift)?;
        right(fault.kind == FaultKind::WriteProtect, "the write raised another kind of fault")
    };
    answered(|| end(&region), || shared.write(8, &[200]), answer)?;
    let mut expected = vec![0; region.page_size()];
    expected.iter_mut().skip(8).take(1).for_each(|byte| *byte = 200);
    right(shared.compare(0, &expected).is_none(), "the page has other bytes than were written")
}

/// What was read of a load at byte 1232 of a missing page, where that is, and the thread that loaded.
fn load_fault(uffd: &Uffd) -> Result<(Fault, u64, u32), Stop> {
    let region = uffd.map(1, RegisterModes::MISSING)?;
    let shared = region.shared(0..1)?;
    let mut found = None;
    let touch = || {
        shared.read(1232, &mut [0; 8]);
        rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
    };
    let thread = answered(
        || end(&region),
        touch,
        || {
            found = Some(fault_of(&next(|wait, events| uffd.read(wait, events))?)?);
            region.zeropage(0..1)?.complete()?;
            Ok(())
        },
    )?;
    let fault = found.ok_or_else(|| Stop::Wrong("no message came".to_owned()))?;
    right(fault.kind == FaultKind::Missing, "the load raised another kind of fault")?;
    Ok((fault, region.base() as u64 + 1232, thread))
}

pub(super) fn thread_id(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let (fault, _, thread) = load_fault(&attempt.column.builder().require(Features::THREAD_ID).open()?)?;
    right(fault.thread == Some(thread), "the message names another thread")
}

pub(super) fn exact_address(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let (fault, address, _) = load_fault(&attempt.column.builder().require(Features::EXACT_ADDRESS).open()?)?;
    right(fault.address == address, "the message names another address")
}

/// Neither is ready before a fault, and both are with one.
pub(super) fn poll(attempt: &Attempt<'_>) -> Result<(), Stop> {
    let uffd = attempt.column.builder().open()?;
    let region = uffd.map(1, RegisterModes::MISSING)?;
    let shared = region.shared(0..1)?;
    let descriptor = uffd.descriptor()?;
    let failed = |errno: rustix::io::Errno| {
        Stop::System(
            "epoll(7)",
            Errno::from_raw(errno.raw_os_error()),
            "allow poll and epoll in the sandbox's filter".to_owned(),
        )
    };
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
    epoll::add(&set, descriptor, epoll::EventData::new_u64(7), epoll::EventFlags::IN).map_err(failed)?;
    let is_ready = |wait: Timespec| {
        let mut poll = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
        let polled = rustix::event::poll(&mut poll, Some(&wait)).map_err(failed)?;
        let mut event = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        let waited = epoll::wait(&set, &mut event[..], Some(&wait)).map_err(failed)?;
        Ok::<_, Stop>((polled, waited))
    };
    let before = is_ready(Timespec { tv_sec: 0, tv_nsec: 0 })?;
    right(before == (0, 0), "the descriptor is ready without a message")?;
    let answer = || {
        let ready = is_ready(Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 })?;
        next(|wait, events| uffd.read(wait, events))?;
        region.zeropage(0..1)?.complete()?;
        right(ready == (1, 1), "the descriptor was not ready with a message")
    };
    answered(|| end(&region), || shared.read(0, &mut [0; 8]), answer)
}
