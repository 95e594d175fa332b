//! The C header's side of the comparison: what a C program prints must be what this crate says.
//!
//! Names that the header lacks are printed; only names younger than Linux 6.1 may be lacking.

use crate::{length, skip};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use userfault_abi::{
    Api, Continue, ContinueModes, Copy, CopyModes, Errno, Features, IoctlMask, Message, Move, MoveModes, OpenFlags,
    PagefaultFlags, Poison, PoisonModes, PollEvents, Range, Register, RegisterModes, Writeprotect, WriteprotectModes,
    Zeropage, ZeropageModes,
};
use userfault_abi::{event, original, request};

/// What the C compiler is asked: a name to print, a macro that must exist, an expression, our value.
struct Question {
    name: String,
    guard: &'static str,
    value: u64,
}

fn question(name: impl Into<String>, guard: &'static str, value: impl Into<u64>) -> Question {
    Question { name: name.into(), guard, value: value.into() }
}

/// Macros, each its own guard.
macro_rules! macros {
    ($($name:ident = $value:expr),* $(,)?) => {
        [$(question(stringify!($name), stringify!($name), $value)),*]
    };
}

/// Length of a structure, and offset and length of each field. The field is found by filling it and
/// looking which bytes of the encoding change.
macro_rules! structure {
    ($rust:ident, $c:literal, $guard:literal: $($($field:ident).+ = $c_field:literal as $full:expr),*) => {{
        let mut questions = vec![
            question(concat!("sizeof(struct ", $c, ")"), $guard, length($rust::SIZE)),
        ];
        $({
            let mut value = $rust::default();
            value.$($field).+ = $full;
            questions.extend(field(&value.encode(), $c, $c_field, $guard));
        })*
        questions
    }};
}

fn field(filled: &[u8], c: &str, c_field: &str, guard: &'static str) -> [Question; 2] {
    let offset = filled.iter().take_while(|byte| **byte == 0).count();
    let size = filled.iter().filter(|byte| **byte == 0xFF).count();
    let all_together = filled.iter().skip(offset).take(size).all(|byte| *byte == 0xFF);
    assert!(size > 0 && all_together, "{c}.{c_field} is one run of bytes");
    [
        question(format!("offsetof(struct {c}, {c_field})"), guard, length(offset)),
        question(format!("sizeof(((struct {c} *)0)->{c_field})"), guard, length(size)),
    ]
}

fn structure_questions() -> Vec<Question> {
    const M: u64 = u64::MAX;
    [
        structure!(Api, "uffdio_api", "UFFDIO_API":
            api = "api" as M, features = "features" as M, ioctls = "ioctls" as M),
        structure!(Range, "uffdio_range", "UFFDIO_WAKE": start = "start" as M, len = "len" as M),
        structure!(Register, "uffdio_register", "UFFDIO_REGISTER":
            range.start = "range.start" as M, range.len = "range.len" as M,
            mode = "mode" as M, ioctls = "ioctls" as M),
        structure!(Copy, "uffdio_copy", "UFFDIO_COPY":
            dst = "dst" as M, src = "src" as M, len = "len" as M, mode = "mode" as M,
            copy = "copy" as -1),
        structure!(Zeropage, "uffdio_zeropage", "UFFDIO_ZEROPAGE":
            range.start = "range.start" as M, range.len = "range.len" as M,
            mode = "mode" as M, zeropage = "zeropage" as -1),
        structure!(Writeprotect, "uffdio_writeprotect", "UFFDIO_WRITEPROTECT":
            range.start = "range.start" as M, range.len = "range.len" as M, mode = "mode" as M),
        structure!(Continue, "uffdio_continue", "UFFDIO_CONTINUE":
            range.start = "range.start" as M, range.len = "range.len" as M,
            mode = "mode" as M, mapped = "mapped" as -1),
        structure!(Poison, "uffdio_poison", "UFFDIO_POISON":
            range.start = "range.start" as M, range.len = "range.len" as M,
            mode = "mode" as M, updated = "updated" as -1),
        structure!(Move, "uffdio_move", "UFFDIO_MOVE":
            dst = "dst" as M, src = "src" as M, len = "len" as M, mode = "mode" as M,
            moved = "move" as -1),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The fields of a message, found as those of a structure; the event byte is not part of the search.
fn message_questions() -> Vec<Question> {
    const M: u64 = u64::MAX;
    let all = PagefaultFlags::from_bits(M);
    let none = PagefaultFlags::NONE;
    let mut questions = vec![question("sizeof(struct uffd_msg)", "UFFD_API", length(Message::SIZE))];
    for (message, c_field) in [
        (Message::pagefault(all, 0, 0), "arg.pagefault.flags"),
        (Message::pagefault(none, M, 0), "arg.pagefault.address"),
        (Message::pagefault(none, 0, u32::MAX), "arg.pagefault.feat.ptid"),
        (Message::fork(u32::MAX), "arg.fork.ufd"),
        (Message::remap(M, 0, 0), "arg.remap.from"),
        (Message::remap(0, M, 0), "arg.remap.to"),
        (Message::remap(0, 0, M), "arg.remap.len"),
        (Message::remove(M, 0), "arg.remove.start"),
        (Message::remove(0, M), "arg.remove.end"),
        (Message::unmap(M, 0), "arg.remove.start"),
        (Message::unmap(0, M), "arg.remove.end"),
    ] {
        let mut filled = message.to_bytes();
        filled[0] = 0;
        questions.extend(field(&filled, "uffd_msg", c_field, "UFFD_API"));
    }
    let mut event_only = [0; Message::SIZE];
    event_only[0] = 0xFF;
    questions.extend(field(&event_only, "uffd_msg", "event", "UFFD_API"));
    questions
}

fn number_questions() -> Vec<Question> {
    macros! {
        UFFDIO = request::TYPE,
        USERFAULTFD_IOC = request::TYPE,
        UFFD_API = request::UFFD_API,
        UFFDIO_API = request::API,
        UFFDIO_REGISTER = request::REGISTER,
        UFFDIO_UNREGISTER = request::UNREGISTER,
        UFFDIO_WAKE = request::WAKE,
        UFFDIO_COPY = request::COPY,
        UFFDIO_ZEROPAGE = request::ZEROPAGE,
        UFFDIO_MOVE = request::MOVE,
        UFFDIO_WRITEPROTECT = request::WRITEPROTECT,
        UFFDIO_CONTINUE = request::CONTINUE,
        UFFDIO_POISON = request::POISON,
        USERFAULTFD_IOC_NEW = request::NEW,
        UFFD_EVENT_PAGEFAULT = event::PAGEFAULT,
        UFFD_EVENT_FORK = event::FORK,
        UFFD_EVENT_REMAP = event::REMAP,
        UFFD_EVENT_REMOVE = event::REMOVE,
        UFFD_EVENT_UNMAP = event::UNMAP,
        UFFD_API_IOCTLS = original::API_IOCTLS.bits(),
        POLLIN = PollEvents::IN.bits(),
        POLLERR = PollEvents::ERR.bits(),
        POLLHUP = PollEvents::HUP.bits(),
        UFFD_USER_MODE_ONLY = OpenFlags::USER_MODE_ONLY.bits(),
        O_NONBLOCK = OpenFlags::NONBLOCK.bits(),
        O_CLOEXEC = OpenFlags::CLOEXEC.bits(),
    }
    .into()
}

fn mode_questions() -> Vec<Question> {
    macros! {
        UFFDIO_REGISTER_MODE_MISSING = RegisterModes::MISSING.bits(),
        UFFDIO_REGISTER_MODE_WP = RegisterModes::WP.bits(),
        UFFDIO_REGISTER_MODE_MINOR = RegisterModes::MINOR.bits(),
        UFFDIO_COPY_MODE_DONTWAKE = CopyModes::DONTWAKE.bits(),
        UFFDIO_COPY_MODE_WP = CopyModes::WP.bits(),
        UFFDIO_ZEROPAGE_MODE_DONTWAKE = ZeropageModes::DONTWAKE.bits(),
        UFFDIO_WRITEPROTECT_MODE_WP = WriteprotectModes::WP.bits(),
        UFFDIO_WRITEPROTECT_MODE_DONTWAKE = WriteprotectModes::DONTWAKE.bits(),
        UFFDIO_CONTINUE_MODE_DONTWAKE = ContinueModes::DONTWAKE.bits(),
        UFFDIO_CONTINUE_MODE_WP = ContinueModes::WP.bits(),
        UFFDIO_POISON_MODE_DONTWAKE = PoisonModes::DONTWAKE.bits(),
        UFFDIO_MOVE_MODE_DONTWAKE = MoveModes::DONTWAKE.bits(),
        UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES = MoveModes::ALLOW_SRC_HOLES.bits(),
        UFFD_PAGEFAULT_FLAG_WRITE = PagefaultFlags::WRITE.bits(),
        UFFD_PAGEFAULT_FLAG_WP = PagefaultFlags::WP.bits(),
        UFFD_PAGEFAULT_FLAG_MINOR = PagefaultFlags::MINOR.bits(),
    }
    .into()
}

fn feature_questions() -> Vec<Question> {
    macros! {
        UFFD_FEATURE_PAGEFAULT_FLAG_WP = Features::PAGEFAULT_FLAG_WP.bits(),
        UFFD_FEATURE_EVENT_FORK = Features::EVENT_FORK.bits(),
        UFFD_FEATURE_EVENT_REMAP = Features::EVENT_REMAP.bits(),
        UFFD_FEATURE_EVENT_REMOVE = Features::EVENT_REMOVE.bits(),
        UFFD_FEATURE_MISSING_HUGETLBFS = Features::MISSING_HUGETLBFS.bits(),
        UFFD_FEATURE_MISSING_SHMEM = Features::MISSING_SHMEM.bits(),
        UFFD_FEATURE_EVENT_UNMAP = Features::EVENT_UNMAP.bits(),
        UFFD_FEATURE_SIGBUS = Features::SIGBUS.bits(),
        UFFD_FEATURE_THREAD_ID = Features::THREAD_ID.bits(),
        UFFD_FEATURE_MINOR_HUGETLBFS = Features::MINOR_HUGETLBFS.bits(),
        UFFD_FEATURE_MINOR_SHMEM = Features::MINOR_SHMEM.bits(),
        UFFD_FEATURE_EXACT_ADDRESS = Features::EXACT_ADDRESS.bits(),
        UFFD_FEATURE_WP_HUGETLBFS_SHMEM = Features::WP_HUGETLBFS_SHMEM.bits(),
        UFFD_FEATURE_WP_UNPOPULATED = Features::WP_UNPOPULATED.bits(),
        UFFD_FEATURE_POISON = Features::POISON.bits(),
        UFFD_FEATURE_WP_ASYNC = Features::WP_ASYNC.bits(),
        UFFD_FEATURE_MOVE = Features::MOVE.bits(),
    }
    .into()
}

/// The bits of `IoctlMask`, which the header gives as ioctl numbers.
fn ioctl_questions() -> Vec<Question> {
    let bit = |(guard, ioctls): (&'static str, IoctlMask)| question(format!("1ULL<<{guard}"), guard, ioctls.bits());
    [
        ("_UFFDIO_REGISTER", IoctlMask::REGISTER),
        ("_UFFDIO_UNREGISTER", IoctlMask::UNREGISTER),
        ("_UFFDIO_WAKE", IoctlMask::WAKE),
        ("_UFFDIO_COPY", IoctlMask::COPY),
        ("_UFFDIO_ZEROPAGE", IoctlMask::ZEROPAGE),
        ("_UFFDIO_MOVE", IoctlMask::MOVE),
        ("_UFFDIO_WRITEPROTECT", IoctlMask::WRITEPROTECT),
        ("_UFFDIO_CONTINUE", IoctlMask::CONTINUE),
        ("_UFFDIO_POISON", IoctlMask::POISON),
        ("_UFFDIO_API", IoctlMask::API),
    ]
    .map(bit)
    .into()
}

#[cfg(target_arch = "x86_64")]
fn syscall_questions() -> Vec<Question> {
    macros! { __NR_userfaultfd = request::SYSCALL_X86_64.cast_unsigned() }.into()
}

#[cfg(not(target_arch = "x86_64"))]
fn syscall_questions() -> Vec<Question> {
    Vec::new()
}

fn errno_questions() -> Vec<Question> {
    (0..4096)
        .map(Errno::from_raw)
        .filter_map(|errno| Some((errno.name()?, errno.raw().unsigned_abs())))
        .map(|(name, number)| question(name, name, number))
        .collect()
}

/// Compiles a program that prints `name value` lines, and runs it; `None` if there is no compiler.
fn answers_of_the_header(questions: &[Question]) -> Option<HashMap<String, u64>> {
    let mut source = String::from(
        "#define _GNU_SOURCE\n#include <errno.h>\n#include <fcntl.h>\n#include <poll.h>\n\
         #include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n\
         #include <sys/syscall.h>\n#include <linux/userfaultfd.h>\nint main(void) {\n",
    );
    for Question { name, guard, .. } in questions {
        writeln!(source, "#ifdef {guard}\nprintf(\"%s\\t%llu\\n\", \"{name}\", (unsigned long long)({name}));\n#endif")
            .expect("a string grows");
    }
    source.push_str("return 0; }\n");

    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("layout");
    let mut compiler =
        Command::new("cc").args(["-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped()).spawn().ok()?;
    let mut input = compiler.stdin.take().expect("piped above");
    input.write_all(source.as_bytes()).expect("the compiler reads");
    drop(input);
    assert!(compiler.wait().expect("it was started").success(), "cc refused:\n{source}");

    let output = Command::new(program).output().expect("it was just compiled");
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).expect("C names are ASCII");
    let parse = |line: &str| {
        let (name, value) = line.split_once('\t').expect("a tab after the name");
        (name.to_owned(), value.parse().expect("a number after the tab"))
    };
    Some(lines.lines().map(parse).collect())
}

/// Macros younger than the header of Linux 6.1, the oldest that this test accepts.
const YOUNG: [&str; 12] = [
    "UFFDIO_CONTINUE_MODE_WP",
    "UFFDIO_MOVE",
    "UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES",
    "UFFDIO_MOVE_MODE_DONTWAKE",
    "UFFDIO_POISON",
    "UFFDIO_POISON_MODE_DONTWAKE",
    "UFFD_FEATURE_MOVE",
    "UFFD_FEATURE_POISON",
    "UFFD_FEATURE_WP_ASYNC",
    "UFFD_FEATURE_WP_UNPOPULATED",
    "_UFFDIO_MOVE",
    "_UFFDIO_POISON",
];

#[test]
fn the_c_header_has_the_same_numbers_lengths_and_offsets() {
    let questions: Vec<Question> = [
        structure_questions(),
        message_questions(),
        number_questions(),
        mode_questions(),
        feature_questions(),
        ioctl_questions(),
        syscall_questions(),
        errno_questions(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let Some(answers) = answers_of_the_header(&questions) else {
        return skip("there is no C compiler `cc`");
    };
    let mut compared = 0;
    for Question { name, guard, value } in &questions {
        if let Some(answer) = answers.get(name) {
            assert_eq!(answer, value, "{name}");
            compared += 1;
        } else {
            println!("the header lacks {name}");
            assert!(YOUNG.contains(guard), "{name} is in every header since Linux 6.1");
        }
    }
    println!("{compared} of {} compared", questions.len());
}
