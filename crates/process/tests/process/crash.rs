//! A crash beside regions leaves the core file that it would have left without them.

use std::path::{Path, PathBuf};

use crate::access::store;
use crate::alone::{Ended, command, in_child, run};
use crate::os;
use crate::support::{CHUNK, fill, map, open, scatter};

const WITHOUT_US: &str = "USERFAULT_WITHOUT_US";
/// Where the instruction that crashes writes to.
const NOWHERE: usize = 16;

/// What a core file says of the crash: the signal, its code, its address, and the thread's signal.
#[derive(Debug, PartialEq, Eq)]
struct Crash {
    signal: i32,
    code: i32,
    address: usize,
    thread_signal: u16,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from_ne_bytes(number(bytes, at))
}

fn half(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(number(bytes, at)) as usize
}

/// The notes of an ELF core file, as kind and contents.
fn notes(core: &[u8]) -> Vec<(usize, &[u8])> {
    assert_eq!(&core[..4], b"\x7fELF");
    let (table, size) = (word(core, 32), usize::from(u16::from_ne_bytes(number(core, 54))));
    let header = (0..).map(|at| &core[table + at * size..]).find(|header| half(header, 0) == 4).unwrap();
    let mut rest = &core[word(header, 8)..][..word(header, 32)];
    let mut found = Vec::new();
    while rest.len() >= 12 {
        let (name, len, kind) = (half(rest, 0), half(rest, 4), half(rest, 8));
        let start = 12 + name.next_multiple_of(4);
        found.push((kind, &rest[start..start + len]));
        rest = &rest[start + len.next_multiple_of(4)..];
    }
    found
}

impl Crash {
    fn read(file: &Path) -> Self {
        let core = std::fs::read(file).unwrap();
        let notes = notes(&core);
        // NT_SIGINFO and NT_PRSTATUS; the first of these is the thread that crashed.
        let of = |wanted| notes.iter().find(|(kind, _)| *kind == wanted).unwrap().1;
        let (information, status) = (of(0x5349_4749), of(1));
        Self {
            signal: i32::from_ne_bytes(number(information, 0)),
            code: i32::from_ne_bytes(number(information, 8)),
            address: word(information, 16),
            thread_signal: u16::from_ne_bytes(number(status, 12)),
        }
    }
}

/// Runs the test's child, with regions or without, in a folder of its own; how it ended, and its core file.
fn crash<F>(without_us: bool) -> (Ended, Option<Crash>) {
    let folder = std::env::temp_dir().join(format!("userfault-core-{}-{without_us}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let mut child = command::<F>();
    child.current_dir(&folder);
    if without_us {
        child.env(WITHOUT_US, "1");
    }
    let ended = run(&mut child);
    let file: Option<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).next();
    let found = file.as_deref().map(Crash::read);
    std::fs::remove_dir_all(&folder).unwrap();
    (ended, found)
}

fn with_and_without<F: FnOnce()>(body: F) {
    in_child(body);
    let (ended, core) = crash::<F>(false);
    let (plain, plain_core) = crash::<F>(true);
    assert_eq!((ended.signal, ended.code, ended.has_core), (plain.signal, plain.code, plain.has_core), "{ended:?}");
    assert_eq!(ended.signal, Some(libc::SIGSEGV), "{ended:?}");
    assert_eq!(core, plain_core);
    match core {
        Some(core) => {
            let thread_signal = u16::try_from(libc::SIGSEGV).unwrap();
            // SEGV_MAPERR: the instruction's own fault, not one that somebody sent.
            assert_eq!(core, Crash { signal: libc::SIGSEGV, code: 1, address: NOWHERE, thread_signal });
            println!("measured: {core:?}");
        }
        None => println!("skipped in part, because crashes leave no core file in their folder here"),
    }
}

// spec: H26
#[test]
fn a_strangers_fault_leaves_the_core_file_it_would_have_left() {
    with_and_without(|| {
        os::allow_core_files();
        // As a C program, whose crash is nobody's to report.
        os::set_action(libc::SIGSEGV, libc::SIG_DFL, 0);
        if std::env::var_os(WITHOUT_US).is_none() {
            let region = map(&open(), CHUNK);
            scatter(&region, 0..20, 1);
            fill(&region, 100, 1);
            std::mem::forget(region);
        }
        store(NOWHERE, 1);
    });
}
