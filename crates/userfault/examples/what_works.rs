//! What works on this machine, found by doing it: the table in the README.
//!
//! `cargo run -p userfault --example what_works`
//!
//! Prints a Markdown table, a row for each ability and a column for each way of having userfaultfd. A cell is
//! "yes" only if the ability was used and its result was right; otherwise it says what the provider answered.
//! Where using it would end this program, or takes a second one (`SIGBUS`, FORK, MOVE and the like), "yes" is
//! the handshake's answer.
//! Exit status 1 if nothing can be opened.

use std::io::Read as _;
use std::ops::Range;
use std::process::ExitCode;

use userfault::prelude::*;
use userfault::{
    Builder, Choice, Either, Event, FaultKind, Features, KernelFaults, Protocol, RegisterModes, SourceError, Uffd,
    UffdError, Wait, WriteProtect,
};

/// "yes", or why not.
type Answer = Result<(), String>;
type Way = fn(Builder) -> Builder;
type Row = (&'static str, fn(Builder) -> Answer);

const WAYS: [(&str, Way); 3] = [
    ("linux, user faults", |builder| builder.provider(Choice::Linux)),
    ("linux, kernel faults", |builder| builder.provider(Choice::Linux).kernel_faults(KernelFaults::Require)),
    ("process", |builder| builder.provider(Choice::Process)),
];

const ROWS: [Row; 20] = [
    ("missing faults, COPY", missing),
    ("ZEROPAGE", zeropage),
    ("write-protect faults, WRITEPROTECT", writeprotect),
    ("COPY of a protected page", copy_protected),
    ("POISON", |builder| poison(&open(builder)?)),
    ("discard, and missing again", discard),
    ("unregister part of a region", unregister),
    ("`THREAD_ID`", thread_id),
    ("`EXACT_ADDRESS`", exact_address),
    ("`SIGBUS`", |builder| feature(builder, Features::SIGBUS)),
    ("`WP_UNPOPULATED`", |builder| feature(builder, Features::WP_UNPOPULATED)),
    ("descriptor for poll and epoll", descriptor),
    ("a system call on a missing page waits", system_call),
    ("MOVE", |builder| linux_feature(builder, Features::MOVE)),
    ("missing faults in shared memory", shared),
    ("MINOR faults, CONTINUE", minor),
    ("`WP_ASYNC`", |builder| feature(builder, Features::WP_ASYNC)),
    ("events FORK", |builder| feature(builder, Features::EVENT_FORK)),
    ("events REMAP, REMOVE, UNMAP", events),
    ("the original protocol of 2015", original),
];

fn main() -> ExitCode {
    let opened = WAYS.map(|(_, way)| open(way(Builder::new())).is_ok());
    println!("| | {} |", WAYS.map(|(name, _)| name).join(" | "));
    println!("|---|{}", "---|".repeat(WAYS.len()));
    for (name, row) in ROWS {
        let cells = WAYS.map(|(_, way)| row(way(Builder::new())).map_or_else(|why| why, |()| "yes".to_owned()));
        println!("| {name} | {} |", cells.join(" | "));
    }
    if opened.contains(&true) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn open(builder: Builder) -> Result<Uffd, String> {
    builder.open().map_err(|error| {
        let refused = error.refused().last().map(|refused| refused.error.clone());
        match refused {
            Some(UffdError::FeaturesMissing { .. }) => "no".to_owned(),
            Some(UffdError::Refused { tried, .. }) => {
                let last = tried.last().map(|refusal| format!("{}: {}", refusal.way, refusal.errno));
                format!("no ({})", last.unwrap_or_default())
            }
            _ => error.to_string(),
        }
    })
}

fn right(is_right: bool) -> Answer {
    if is_right { Ok(()) } else { Err("WRONG".to_owned()) }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Fills pages with their number.
fn numbers(pages: Range<usize>, into: &mut [u8]) -> Result<(), SourceError> {
    let size = into.len() / pages.len();
    for (page, bytes) in pages.zip(into.chunks_exact_mut(size)) {
        bytes.fill(u8::try_from(page % 251).unwrap_or(0));
    }
    Ok(())
}

fn missing(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map(8, RegisterModes::MISSING).map_err(said)?;
    let monitor = uffd.serve(&region, numbers).map_err(said)?;
    let window = region.window(0..8).map_err(said)?;
    let all = window.as_ref().chunks(region.page_size()).enumerate();
    let good = all.fold(true, |good, (page, bytes)| good && bytes.iter().all(|byte| usize::from(*byte) == page));
    right(good && monitor.join().map_err(said)?.faults == 8)
}

fn zeropage(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map(2, RegisterModes::MISSING).map_err(said)?;
    region.zeropage(0..2).map_err(said)?.complete().map_err(said)?;
    right(region.window(0..2).map_err(said)?.as_ref().iter().all(|byte| *byte == 0))
}

/// Has a thread write to page 0 of a region whose page is there; answers the kind of fault it raises.
fn write_fault(uffd: &Uffd, region: &<Uffd as userfault::client::Uffd>::Region) -> Result<FaultKind, String> {
    let shared = region.shared(0..1).map_err(said)?;
    let writer = std::thread::spawn(move || shared.write(8, &[1; 8]));
    let mut events = Vec::new();
    uffd.read(Wait::Forever, &mut events).map_err(said)?;
    region.writeprotect(0..1, WriteProtect::Lift).map_err(said)?;
    writer.join().map_err(|_| "WRONG".to_owned())?;
    match events.as_slice() {
        [Event::Fault(fault), ..] => Ok(fault.kind),
        _ => Err("WRONG".to_owned()),
    }
}

fn writeprotect(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map(1, RegisterModes::MISSING | RegisterModes::WP).map_err(said)?;
    region.zeropage(0..1).map_err(said)?.complete().map_err(said)?;
    region.writeprotect(0..1, WriteProtect::Protect).map_err(said)?;
    right(write_fault(&uffd, &region)? == FaultKind::WriteProtect)
}

fn copy_protected(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map(1, RegisterModes::MISSING | RegisterModes::WP).map_err(said)?;
    region.copy_protected(0, &vec![5; region.page_size()]).map_err(said)?.complete().map_err(said)?;
    right(write_fault(&uffd, &region)? == FaultKind::WriteProtect)
}

fn poison(uffd: &Uffd) -> Answer {
    let region = uffd.map(1, RegisterModes::MISSING).map_err(said)?;
    region.poison(0..1).map_err(said)?.complete().map_err(said)?;
    // What is poisoned cannot be filled with zeros any more; a touch would end this program.
    right(region.zeropage(0..1).map_err(said)?.complete().is_err())
}

fn discard(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map(1, RegisterModes::MISSING).map_err(said)?;
    let monitor = uffd.serve(&region, |_, into: &mut [u8]| {
        into.fill(9);
        Ok(())
    });
    let monitor = monitor.map_err(said)?;
    let shared = region.shared(0..1).map_err(said)?;
    let mut byte = [0];
    shared.read(0, &mut byte);
    region.discard_shared(&shared, 0..1).map_err(said)?;
    shared.read(0, &mut byte);
    right(byte == [9] && monitor.join().map_err(said)?.faults == 2)
}

fn unregister(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map(3, RegisterModes::MISSING).map_err(said)?;
    region.unregister(1..2).map_err(said)?;
    right(region.window(1..2).map_err(said)?.as_ref().iter().all(|byte| *byte == 0))
}

/// The first fault of a thread that reads byte 1234 of a region.
fn first_fault(uffd: &Uffd) -> Result<(userfault::Fault, usize), String> {
    let region = uffd.map(1, RegisterModes::MISSING).map_err(said)?;
    let shared = region.shared(0..1).map_err(said)?;
    let reader = std::thread::spawn(move || shared.read(1232, &mut [0; 8]));
    let mut events = Vec::new();
    uffd.read(Wait::Forever, &mut events).map_err(said)?;
    region.zeropage(0..1).map_err(said)?.complete().map_err(said)?;
    reader.join().map_err(|_| "WRONG".to_owned())?;
    match events.as_slice() {
        [Event::Fault(fault), ..] => Ok((*fault, region.base())),
        _ => Err("WRONG".to_owned()),
    }
}

fn thread_id(builder: Builder) -> Answer {
    let (fault, _) = first_fault(&open(builder.require(Features::THREAD_ID))?)?;
    right(fault.thread.is_some())
}

fn exact_address(builder: Builder) -> Answer {
    let (fault, base) = first_fault(&open(builder.require(Features::EXACT_ADDRESS))?)?;
    right(fault.address == base as u64 + 1232)
}

fn feature(builder: Builder, feature: Features) -> Answer {
    let uffd = open(builder.require(feature))?;
    right(uffd.capabilities().features.contains(feature))
}

/// Features that only say that something exists are never "enabled": asked of the handshake.
fn linux_feature(builder: Builder, feature: Features) -> Answer {
    let uffd = open(builder)?;
    if uffd.capabilities().available.contains(feature) { Ok(()) } else { Err("no".to_owned()) }
}

fn descriptor(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    right(uffd.descriptor().is_ok())
}

fn system_call(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map(1, RegisterModes::MISSING).map_err(said)?;
    let monitor = uffd.serve(&region, numbers).map_err(said)?;
    let mut window = region.window(0..1).map_err(said)?;
    let mut zeros = std::fs::File::open("/dev/zero").map_err(said)?;
    let read = zeros.read(window.as_mut().get_mut(..16).unwrap_or_default());
    drop(monitor);
    match read {
        Ok(16) => Ok(()),
        Ok(_) => Err("WRONG".to_owned()),
        Err(error) => Err(format!("no ({})", userfault::Errno::from_raw(error.raw_os_error().unwrap_or(0)))),
    }
}

fn shared(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let region = uffd.map_shared(1).map_err(said)?;
    let shared = region.shared(0..1).map_err(said)?;
    let reader = std::thread::spawn(move || shared.compare(0, &[3; 4096]));
    let mut events = Vec::new();
    uffd.read(Wait::Forever, &mut events).map_err(said)?;
    region.copy(0, &vec![3; region.page_size()]).map_err(said)?.complete().map_err(said)?;
    right(reader.join().ok() == Some(None))
}

fn minor(builder: Builder) -> Answer {
    let uffd = open(builder)?;
    let Either::Linux(linux) = uffd.as_either() else { return Err("no".to_owned()) };
    let region = linux.map_shared(1, RegisterModes::MINOR).map_err(said)?;
    region.populate(0, &vec![3; 4096]).map_err(said)?;
    let shared = region.shared(0..1).map_err(said)?;
    let reader = std::thread::spawn(move || {
        let mut byte = [0];
        shared.read(0, &mut byte);
        byte
    });
    let mut events = Vec::new();
    linux.read(Wait::Forever, &mut events).map_err(said)?;
    let is_minor = matches!(events.as_slice(), [Event::Fault(fault), ..] if fault.kind == FaultKind::Minor);
    let modes = userfault::client::abi::ContinueModes::NONE;
    region.continue_pages(0..1, modes).map_err(said)?.complete().map_err(said)?;
    right(is_minor && reader.join().ok() == Some([3]))
}

fn events(builder: Builder) -> Answer {
    let all = Features::EVENT_REMAP | Features::EVENT_REMOVE | Features::EVENT_UNMAP;
    feature(builder, all)
}

fn original(builder: Builder) -> Answer {
    let uffd = open(builder.protocol(Protocol::Original { fills: false }))?;
    let region = uffd.map(1, RegisterModes::MISSING).map_err(said)?;
    let monitor = uffd.serve(&region, numbers).map_err(said)?;
    let good = region.window(0..1).map_err(said)?.as_ref().iter().all(|byte| *byte == 0);
    right(good && monitor.join().map_err(said)?.faults == 1)
}
