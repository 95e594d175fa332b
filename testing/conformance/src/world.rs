//! What a scenario is written in: steps that are recorded in comparable form.
//!
//! Addresses are printed relative to the region they lie in (`A+2` is the third page of the first
//! region), descriptors and threads by number, errnos by name. After each step every thread and every
//! descriptor is looked at, and what changed is recorded beside the result: so who woke is part of
//! each record.
//!
//! Kernel counterpart: a test program's main thread.

mod calls;
mod print;

pub use calls::{NONBLOCK, UNTOUCHED};

use std::sync::atomic::{AtomicU64, Ordering};

use userfault_engine::Protocol;

use crate::deviations;
use crate::place::{Activity, At, Fd, Kind, Place, Protection, Thread, Trial, Use};
use crate::record::{Entry, Record, agree};

/// Bytes per page.
pub const PAGE: u64 = 4096;

/// A range of addresses, valid or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A mapping that a scenario made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    base: u64,
    pages: u64,
    letter: char,
}

impl Region {
    /// The address of a page; also outside the region.
    #[must_use]
    pub const fn at(self, page: u64) -> u64 {
        self.base + page * PAGE
    }

    /// `count` pages from `page` on.
    #[must_use]
    pub const fn span(self, page: u64, count: u64) -> Span {
        Span { start: self.at(page), len: count * PAGE }
    }

    /// From its first page through the last of a later region.
    #[must_use]
    pub const fn through(self, later: Self) -> Span {
        Span { start: self.base, len: later.at(later.pages) - self.base }
    }

    /// What lies between it and a later region.
    #[must_use]
    pub const fn until(self, later: Self) -> Span {
        Span { start: self.at(self.pages), len: later.base - self.at(self.pages) }
    }

    /// All of it.
    #[must_use]
    pub const fn all(self) -> Span {
        self.span(0, self.pages)
    }
}

/// One run of a scenario at one place.
pub struct World<'a> {
    place: &'a mut dyn Place,
    protocol: Protocol,
    record: Record,
    regions: Vec<Region>,
    cursor: u64,
    fds: Vec<Option<(Fd, String)>>,
    threads: Vec<Thread>,
    at: At,
}

/// The last step, for saying what the specification expects of it.
pub struct Step<'w, 'a> {
    world: &'w mut World<'a>,
}

static WINDOWS: AtomicU64 = AtomicU64::new(0);

/// Pages kept free around each region.
const GAP: u64 = 64;

impl<'a> World<'a> {
    /// A world without memory, threads or descriptors.
    pub fn new(place: &'a mut dyn Place, protocol: Protocol) -> Self {
        let window = WINDOWS.fetch_add(1, Ordering::Relaxed);
        Self {
            place,
            protocol,
            record: Record::default(),
            regions: Vec::new(),
            cursor: 0x2000_0000_0000 + (window << 30),
            fds: Vec::new(),
            threads: Vec::new(),
            at: At::Good,
        }
    }

    /// Looks at everything once more and hands over what happened.
    pub fn finish(mut self) -> Record {
        for region in self.regions.clone().into_iter().filter(|region| region.letter != 'Z') {
            self.see(region.all());
        }
        self.record
    }

    /// Where the scenario runs.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.place.kind()
    }

    /// Whether the original protocol has fills here.
    #[must_use]
    pub fn has_fills(&self) -> bool {
        self.protocol != Protocol::Original { fills: false }
    }

    /// The argument of the next call lies there.
    pub fn at(&mut self, at: At) -> &mut Self {
        self.at = at;
        self
    }

    /// Maps pages that can be registered.
    pub fn map(&mut self, pages: u64) -> Region {
        self.map_as(pages, Use::Registrable)
    }

    /// Maps two regions, the first below the second, with a hole in between.
    pub fn map_two(&mut self, first: u64, second: u64) -> (Region, Region) {
        loop {
            let (one, two) = (self.map(first), self.map(second));
            if one.base < two.base {
                return (one, two);
            }
            // The place maps downwards: put the other one below.
            let third = self.map(first);
            if third.base < two.base {
                let last = self.regions.len() - 1;
                self.regions.swap(last, last - 2);
                for (region, letter) in self.regions[last - 2..].iter_mut().zip(['A', 'B', 'Z']) {
                    region.letter = letter;
                }
                return (self.regions[last - 2], two);
            }
        }
    }

    /// Maps pages of any kind.
    pub fn map_as(&mut self, pages: u64, purpose: Use) -> Region {
        let wanted = self.cursor + GAP * PAGE;
        self.cursor = wanted + pages * PAGE;
        let base = self.place.map(wanted, pages, purpose);
        let letter = char::from(b'A' + u8::try_from(self.regions.len()).unwrap_or(25));
        let region = Region { base, pages, letter };
        self.regions.push(region);
        region
    }

    /// Maps something into a hole of a region.
    pub fn map_over(&mut self, span: Span, purpose: Use) {
        let base = self.place.map(span.start, span.len / PAGE, purpose);
        assert_eq!(base, span.start, "the place maps where it is told to");
        self.enter(format!("map {} as {purpose:?}", self.span(span)), "done".to_owned());
    }

    /// Maps pages to copy from; page `n` is full of the byte `0x11 × (n + 1)`.
    pub fn source(&mut self, pages: u64) -> Region {
        let region = self.map_as(pages, Use::Source);
        for page in 0..pages {
            self.place.populate(region.at(page), &[pattern(page); 4096]);
        }
        region
    }

    /// Unmaps pages.
    pub fn unmap(&mut self, span: Span) -> Step<'_, 'a> {
        self.place.unmap(span.start, span.len / PAGE);
        self.enter(format!("unmap {}", self.span(span)), "done".to_owned())
    }

    /// Changes what pages allow.
    pub fn protect(&mut self, span: Span, protection: Protection) -> Step<'_, 'a> {
        self.place.protect(span.start, span.len / PAGE, protection);
        self.enter(format!("protect {} {protection:?}", self.span(span)), "done".to_owned())
    }

    /// Gives contents back.
    pub fn discard(&mut self, span: Span) -> Step<'_, 'a> {
        self.place.discard(span.start, span.len / PAGE);
        self.enter(format!("discard {}", self.span(span)), "done".to_owned())
    }

    /// Moves a mapping.
    pub fn remap(&mut self, span: Span, to: u64) -> Step<'_, 'a> {
        self.place.remap(span.start, to, span.len / PAGE);
        self.enter(format!("move {} to {}", self.span(span), self.address(to)), "done".to_owned())
    }

    /// Fills pages before anybody registers them.
    pub fn populate(&mut self, span: Span, byte: u8) {
        for page in 0..span.len / PAGE {
            self.place.populate(span.start + page * PAGE, &[byte; 4096]);
        }
        self.enter(format!("populate {} with {byte:#x}", self.span(span)), "done".to_owned());
    }

    /// Brings contents to missing pages without waking anybody: how the original protocol is supplied.
    pub fn install(&mut self, span: Span, byte: u8) -> Step<'_, 'a> {
        for page in 0..span.len / PAGE {
            self.place.install(span.start + page * PAGE, &[byte; 4096]);
        }
        self.enter(format!("install {byte:#x} at {}", self.span(span)), "done".to_owned())
    }

    /// Ends waiting on a descriptor for good.
    pub fn shut_down(&mut self, fd: usize) -> Step<'_, 'a> {
        let number = self.fd(fd);
        self.place.shut_down(number);
        self.enter(format!("shut down fd{fd}"), "done".to_owned())
    }

    /// Something that only the place knows how to try.
    pub fn try_out(&mut self, what: Trial) -> Step<'_, 'a> {
        let result = self.place.try_out(what);
        self.enter(format!("try {what:?}"), result)
    }

    /// What is at each page.
    pub fn see(&mut self, span: Span) -> Step<'_, 'a> {
        let mut words = Vec::new();
        for page in 0..span.len / PAGE {
            let seen = self.place.seen(span.start + page * PAGE);
            words.push(print::seen(seen));
        }
        self.enter(format!("see {}", self.span(span)), words.join(", "))
    }

    /// Reads a byte without waiting.
    pub fn peek(&mut self, address: u64) -> Step<'_, 'a> {
        let result = self.place.peek(address).map_or_else(print::errno, |byte| format!("{byte:#x}"));
        self.enter(format!("peek {}", self.address(address)), result)
    }

    /// A thread loads eight bytes.
    pub fn load(&mut self, thread: usize, address: u64) -> Step<'_, 'a> {
        self.start(thread, Activity::Load { address }, format!("load {}", self.address(address)))
    }

    /// A thread stores eight bytes.
    pub fn store(&mut self, thread: usize, address: u64, value: u64) -> Step<'_, 'a> {
        let what = format!("store {value:#x} at {}", self.address(address));
        self.start(thread, Activity::Store { address, value }, what)
    }

    /// A thread adds to eight bytes at once.
    pub fn add(&mut self, thread: usize, address: u64, value: u64) -> Step<'_, 'a> {
        let what = format!("add {value:#x} to {}", self.address(address));
        self.start(thread, Activity::Add { address, value }, what)
    }

    /// A thread reads messages and blocks if there are none.
    pub fn read_by(&mut self, thread: usize, fd: usize, count: usize) -> Step<'_, 'a> {
        let activity = Activity::Read { fd: self.fd(fd), count };
        self.start(thread, activity, format!("read fd{fd} {count}"))
    }

    fn start(&mut self, thread: usize, activity: Activity, what: String) -> Step<'_, 'a> {
        if self.threads.len() <= thread {
            self.threads.resize(thread + 1, Thread::Idle);
        }
        self.threads[thread] = Thread::Idle;
        self.place.start(thread, activity);
        let state = self.place.observe(thread);
        self.threads[thread] = state.clone();
        let state = self.thread(&state);
        self.enter(format!("t{thread} {what}"), state)
    }

    /// Whether a thread is asleep.
    #[must_use]
    pub fn is_asleep(&self, thread: usize) -> bool {
        self.threads.get(thread).is_some_and(|state| matches!(state, Thread::Asleep | Thread::Reading))
    }

    /// What happened so far, for programs that are compared as they are.
    #[must_use]
    pub fn into_record(self) -> Record {
        self.record
    }

    /// A signal with a handler.
    pub fn signal(&mut self, thread: usize) -> Step<'_, 'a> {
        self.place.signal(thread);
        self.enter(format!("signal t{thread}"), "done".to_owned())
    }

    /// Something that a scenario looked at by other means.
    pub fn note(&mut self, what: &str, result: impl Into<String>) -> Step<'_, 'a> {
        self.enter(what.to_owned(), result.into())
    }

    /// The last step may differ from what other places do, by this rule.
    fn excuse(&mut self, rule: &'static str, what: fn(&mut Entry) -> &mut Option<&'static str>) {
        self.record.excuses.push(rule);
        if let Some(entry) = self.record.entries.last_mut() {
            *what(entry) = Some(rule);
        }
    }

    fn fd(&self, fd: usize) -> Fd {
        self.fds[fd].as_ref().unwrap_or_else(|| panic!("fd{fd} is closed")).0
    }

    /// Records a step, with everything that changed since the last one.
    fn enter(&mut self, call: String, result: String) -> Step<'_, 'a> {
        self.at = At::Good;
        let mut effects = Vec::new();
        for thread in 0..self.threads.len() {
            let state = self.place.observe(thread);
            if state != self.threads[thread] {
                effects.push(format!("t{thread} {}", self.thread(&state)));
                self.threads[thread] = state;
            }
        }
        for fd in 0..self.fds.len() {
            let Some((number, before)) = self.fds[fd].clone() else { continue };
            let now = print::counts(&self.place.fdinfo(number));
            if now != before {
                effects.push(format!("fd{fd} {now}"));
                self.fds[fd] = Some((number, now));
            }
        }
        self.record.entries.push(Entry {
            call,
            result,
            effects: effects.join(", "),
            excused_result: None,
            excused_effects: None,
        });
        Step { world: self }
    }
}

/// The byte that fills a page of a source.
#[must_use]
pub fn pattern(page: u64) -> u8 {
    0x11 * u8::try_from(page % 14 + 1).unwrap_or(1)
}

/// Eight times the byte that fills a page of a source.
#[must_use]
pub fn word(page: u64) -> u64 {
    u64::from_ne_bytes([pattern(page); 8])
}

impl Step<'_, '_> {
    /// The result that the specification says.
    pub fn is(mut self, expected: impl AsRef<str>) -> Self {
        self.expect(expected.as_ref());
        self
    }

    /// The result that the specification says, except where `rule` is departed from.
    pub fn is_but(mut self, expected: impl AsRef<str>, rule: &'static str, ours: impl AsRef<str>) -> Self {
        let departs = deviations::departs(rule, self.world.place.kind());
        if departs && ours.as_ref() != expected.as_ref() {
            self.world.excuse(rule, |entry| &mut entry.excused_result);
        }
        self.expect(if departs { ours.as_ref() } else { expected.as_ref() });
        self
    }

    /// What the step changed besides: threads (`t0 done 0x11`) and counts (`fd0 unread/asleep`), in
    /// this order.
    pub fn then(mut self, expected: impl AsRef<str>) -> Self {
        let found = self.world.record.entries.last().map(|entry| entry.effects.clone()).unwrap_or_default();
        if found != expected.as_ref() {
            self.fail("changes", &found, expected.as_ref());
        }
        self
    }

    /// What changed besides, except where `rule` is departed from.
    pub fn then_but(self, expected: impl AsRef<str>, rule: &'static str, ours: impl AsRef<str>) -> Self {
        let departs = deviations::departs(rule, self.world.place.kind());
        if departs && ours.as_ref() != expected.as_ref() {
            self.world.excuse(rule, |entry| &mut entry.excused_effects);
        }
        self.then(if departs { ours.as_ref() } else { expected.as_ref() })
    }

    /// The result, for scenarios that go on from it.
    #[must_use]
    pub fn result(self) -> String {
        self.world.record.entries.last().map(|entry| entry.result.clone()).unwrap_or_default()
    }

    fn expect(&mut self, expected: &str) {
        let found = self.world.record.entries.last().map(|entry| entry.result.clone()).unwrap_or_default();
        if !agree(&found, expected) {
            self.fail("gives", &found, expected);
        }
    }
}

impl Step<'_, '_> {
    fn fail(&mut self, what: &str, found: &str, expected: &str) {
        let number = self.world.record.entries.len();
        let call = self.world.record.entries.last().map(|entry| entry.call.clone()).unwrap_or_default();
        let text = format!("step {number}, `{call}`, {what} `{found}`; the specification says `{expected}`");
        self.world.failed(text);
    }
}
