//! Addresses that threads of this process cannot do without: their stacks, and what their C library keeps.
//!
//! The kernel tells the stack pointer of a thread that sleeps in it, and of every thread the head of its list
//! of robust locks, which lies in what the C library keeps of the thread; that, its thread locals and its
//! stack are in one mapping, for all threads but the first, whose stack the kernel names.
//!
//! Invariants:
//!
//! 1. What a system call here is given are live locals.
//!
//! Kernel counterpart: `/proc/PID/task/TID/syscall`, `get_robust_list(2)`, `sigaltstack(2)`.
#![expect(unsafe_code, reason = "asks the kernel about threads; the invariant above is this file's proof")]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use super::smaps::hex;
use super::{Unfit, io_error, objects, overlap};
use crate::arena::Fixed;

/// More threads than a process has: each takes two mappings at least.
const THREADS: usize = 1 << 17;
/// How often a running thread is asked where its stack is.
const TRIES: usize = 16;
/// How far what the C library keeps of a thread reaches around the head of its robust locks, but for thread
/// locals; glibc has some room for those of libraries to come.
const REACH: usize = 2048;

/// Where threads have their stacks and what belongs to them.
pub(super) struct InUse {
    threads: Fixed<Thread>,
    reach: Reach,
}

/// How far what belongs to a thread reaches below and above the head of its robust locks: the same for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) below: usize,
    pub(super) above: usize,
}

/// Addresses of a thread's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thread {
    /// In its stack, if that could be found out.
    pub(super) stack: Option<usize>,
    /// The head of its robust locks; 0 if it has none.
    pub(super) data: usize,
}

impl Thread {
    /// The part of a mapping that belongs to it, and what is there.
    ///
    /// The kernel may have made one mapping of what belongs to the thread and other memory beside it.
    fn part_of(self, mapping: &Range<usize>, reach: Reach) -> Option<(Range<usize>, Unfit)> {
        let has_stack = self.stack.is_some_and(|stack| mapping.contains(&stack));
        let has_data = mapping.contains(&self.data);
        let what = if has_stack { Unfit::Stack } else { Unfit::ThreadData };
        let start = match self.stack {
            // Of the first thread, or of one whose stack the program made: elsewhere.
            Some(_) if !has_stack => self.data.saturating_sub(reach.below).max(mapping.start),
            // A stack begins where its mapping does, behind a guard.
            Some(_) | None => mapping.start,
        };
        let is_below = self.stack.is_none_or(|stack| stack <= self.data || !has_stack);
        let end =
            if has_data && is_below { self.data.saturating_add(reach.above).min(mapping.end) } else { mapping.end };
        (has_stack || has_data).then_some((start..end, what))
    }
}

impl InUse {
    /// Of all threads that there are.
    pub(super) fn find() -> io::Result<Self> {
        let mut threads = Fixed::with_capacity(THREADS).map_err(|_| io_error(libc::ENOMEM))?;
        let here = 0_u8;
        // SAFETY: no pointers.
        let caller = unsafe { libc::gettid() };
        // SAFETY: no pointers.
        let first = unsafe { libc::getpid() };
        for thread in std::fs::read_dir("/proc/self/task")? {
            let name = thread?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let stack = match id {
                id if id == caller => Some((&raw const here).addr()),
                // The kernel names its stack, which is refused by that name, wherever the thread is in it.
                id if id == first => Some(stack_pointer(id).unwrap_or(0)),
                id => stack_pointer(id),
            };
            let thread = Thread { stack, data: robust_list(id) };
            threads.push(thread).map_err(|_| io_error(libc::ENOMEM))?;
        }
        Ok(Self { threads, reach: Reach::of(robust_list(caller)) })
    }

    #[cfg(test)]
    pub(super) fn of(list: &[Thread], reach: Reach) -> Self {
        let mut threads = Fixed::with_capacity(list.len()).unwrap_or_else(|error| panic!("{error}"));
        list.iter().for_each(|thread| threads.push(*thread).unwrap_or_else(|thread| panic!("{thread:?}")));
        Self { threads, reach }
    }

    /// The first part of `range`, which lies in `mapping`, that belongs to a thread.
    pub(super) fn part_of(&self, mapping: &Range<usize>, range: &Range<usize>) -> Option<(Range<usize>, Unfit)> {
        self.threads.as_ref().iter().find_map(|thread| {
            let (part, what) = thread.part_of(mapping, self.reach)?;
            Some((overlap(&part, range)?, what))
        })
    }
}

impl Reach {
    /// As thread locals lie around `data` in the calling thread.
    fn of(data: usize) -> Self {
        let locals = objects::locals_around(data);
        Self { below: data.saturating_sub(locals.start) + REACH, above: locals.end.saturating_sub(data) + REACH }
    }
}

/// The head of a thread's list of robust locks; 0 if it has none, or is gone.
fn robust_list(thread: i32) -> usize {
    let mut head: usize = 0;
    let mut len: usize = 0;
    // SAFETY: two live locals (invariant 1).
    let answer = unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut len) };
    if answer == 0 { head } else { 0 }
}

/// Where a thread's stack ends at this moment; `None` if it runs all the time, or is gone.
fn stack_pointer(thread: i32) -> Option<usize> {
    for _ in 0..TRIES {
        let mut text = [0; 256];
        let path = format!("/proc/self/task/{thread}/syscall");
        let len = File::open(path).and_then(|mut file| file.read(&mut text)).ok()?;
        // `running`, or numbers of which the stack pointer is the last but one.
        let mut words = text.get(..len).unwrap_or_default().trim_ascii_end().rsplit(|byte| *byte == b' ');
        if let Some(pointer) = words.nth(1).and_then(|word| hex(word.strip_prefix(b"0x")?)) {
            return Some(pointer);
        }
        std::thread::yield_now();
    }
    None
}

/// The alternate signal stack of the calling thread, if it has one.
pub(super) fn alternate_stack() -> Option<Range<usize>> {
    let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: a live local (invariant 1); nothing is changed.
    let answer = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
    let start = stack.ss_sp.addr();
    (answer == 0 && stack.ss_flags & libc::SS_DISABLE == 0).then(|| start..start.saturating_add(stack.ss_size))
}
