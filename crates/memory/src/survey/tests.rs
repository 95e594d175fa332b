//! Which mappings are refused, from lists that the kernel writes on machines which have such mappings.

use std::ops::Range;

use super::smaps::Smaps;
use super::threads::{InUse, Reach, Thread};
use super::{FaultsBy, Survey, SurveyError, Unfit};

/// One mapping of two pages at 0x10000, as the kernel lists it.
fn list(perms: &str, inode: &str, name: &str, key: u32, flags: &str) -> String {
    format!(
        "8000-9000 rw-p 00000000 00:00 0\nVmFlags: rd wr\n\
         10000-12000 {perms} 00000000 00:00 {inode} {name}\nTHPeligible: 1\nProtectionKey: {key}\nVmFlags: {flags}\n"
    )
}

fn answer(list: &str, range: Range<usize>, faults: FaultsBy) -> Option<(Range<usize>, Unfit)> {
    answer_with(list, range, faults, &[])
}

fn answer_with(list: &str, range: Range<usize>, faults: FaultsBy, threads: &[Thread]) -> Option<(Range<usize>, Unfit)> {
    let smaps = Smaps::new(list.as_bytes()).unwrap();
    match Survey::read(&range, faults, smaps, &InUse::of(threads, Reach { below: 0x4000, above: 0x1_0000 })) {
        Ok(survey) => {
            assert_eq!(survey.huge(), [range]);
            None
        }
        Err(SurveyError::Unfit { range, why }) => Some((range, why)),
        Err(error) => panic!("{error:?}"),
    }
}

// spec: H13
#[test]
fn each_kind_of_mapping_is_refused_for_its_own_reason() {
    let both = [FaultsBy::Signal, FaultsBy::Kernel];
    let only_signal = [FaultsBy::Signal].as_slice();
    #[rustfmt::skip]
    let cases = [
        ("rw-p", "0", "[stack]", 0, "rd wr mr mw me gd ac", Unfit::Stack, both.as_slice()),
        ("rw-p", "0", "", 0, "rd wr mr mw me ss ac", Unfit::Stack, &both),
        ("rw-p", "0", "", 0, "rd wr mr mw me gd ac", Unfit::GrowsDown, &both),
        ("rw-p", "7", "/anon_hugepage", 0, "rd wr mr mw me de ht", Unfit::HugePages, &both),
        ("rw-p", "7", "/dev/fb0", 0, "rd wr mr mw me io dd", Unfit::Device, &both),
        ("rw-p", "0", "", 0, "rd wr mr mw me pf dd", Unfit::Device, &both),
        ("rw-p", "0", "", 0, "rd wr mr mw me mm dd", Unfit::Device, &both),
        ("rw-s", "7", "/dev/zero", 0, "rd wr sh mr mw me ms sd", Unfit::Shared, &both),
        ("rw-p", "7", "/tmp/file", 0, "rd wr mr mw me ac sd", Unfit::File, &both),
        ("rw-p", "0", "", 0, "rd wr mr mw me ac um", Unfit::Registered, &both),
        ("rw-p", "0", "", 0, "rd wr mr mw me ac uw", Unfit::Registered, &both),
        ("rw-p", "0", "", 0, "rd wr mr mw me ac sl", Unfit::Sealed, &both),
        ("rwxp", "0", "", 0, "rd wr ex mr mw me ac", Unfit::Executable, only_signal),
        ("r--p", "0", "", 0, "rd mr mw me ac", Unfit::NotWritable, only_signal),
        ("---p", "0", "", 0, "mr mw me", Unfit::NotWritable, only_signal),
        ("-w-p", "0", "", 0, "wr mr mw me ac", Unfit::NotWritable, only_signal),
        ("rw-p", "0", "", 0, "rd wr mr mw me lo ac", Unfit::Locked, only_signal),
        ("rw-p", "0", "", 3, "rd wr mr mw me ac", Unfit::ProtectionKey, only_signal),
        ("rw-p", "0", "", 0, "rd wr mr mw me dc ac", Unfit::NotForChildren, only_signal),
    ];
    for (perms, inode, name, key, flags, why, refusing) in cases {
        let list = list(perms, inode, name, key, flags);
        for faults in both {
            let expected = refusing.contains(&faults).then_some((0x10000..0x12000, why));
            assert_eq!(answer(&list, 0x10000..0x12000, faults), expected, "{perms} {name} {flags}, {faults:?}");
        }
    }
    let plain = list("rw-p", "0", "[heap]", 0, "rd wr mr mw me ac hg wf dd");
    assert_eq!(answer(&plain, 0x10000..0x12000, FaultsBy::Signal), None);
}

// spec: H13
#[test]
fn holes_are_refused_wherever_they_are() {
    let list = list("rw-p", "0", "", 0, "rd wr");
    for (why, range, hole) in [
        ("before", 0xf000..0x12000, 0xf000..0x10000),
        ("behind", 0x11000..0x14000, 0x12000..0x14000),
        ("below everything", 0x1000..0x2000, 0x1000..0x2000),
        ("above everything", 0x20000..0x21000, 0x20000..0x21000),
        ("between", 0x8000..0x12000, 0x9000..0x10000),
    ] {
        assert_eq!(answer(&list, range, FaultsBy::Signal), Some((hole, Unfit::NotMapped)), "{why}");
    }
}

// spec: H13
#[test]
fn a_mapping_is_a_threads_up_to_what_the_c_library_keeps_of_it() {
    let list = "100000-200000 rw-p 0 00:00 0\nTHPeligible: 1\nVmFlags: rd wr\n";
    let whole = 0x10_0000..0x20_0000;
    let stack = |range| Some((range, Unfit::Stack));
    let data = |range| Some((range, Unfit::ThreadData));
    #[rustfmt::skip]
    let cases = [
        ("stack and data below", Some(0x11_0000), 0x12_0100, whole.clone(), stack(0x10_0000..0x13_0100)),
        ("of these, the last bytes", Some(0x11_0000), 0x12_0100, 0x13_0000..0x14_0000, stack(0x13_0000..0x13_0100)),
        ("above both", Some(0x11_0000), 0x12_0100, 0x13_1000..0x20_0000, None),
        ("data only, the stack is elsewhere", Some(0x5000), 0x12_0000, whole.clone(), data(0x11_c000..0x13_0000)),
        ("below the data, the stack is elsewhere", Some(0x5000), 0x12_0000, 0x10_0000..0x11_c000, None),
        ("above the data, the stack is elsewhere", Some(0x5000), 0x12_0000, 0x13_0000..0x20_0000, None),
        ("data below the stack: who knows", Some(0x15_0000), 0x12_0000, 0x18_0000..0x19_0000, stack(0x18_0000..0x19_0000)),
        ("a stack without data", Some(0x11_0000), 0, 0x18_0000..0x19_0000, stack(0x18_0000..0x19_0000)),
        ("a stack with data elsewhere", Some(0x11_0000), 0x5000, 0x18_0000..0x19_0000, stack(0x18_0000..0x19_0000)),
        ("data of a running thread, whose stack is below", None, 0x12_0000, whole.clone(), data(0x10_0000..0x13_0000)),
        ("above that", None, 0x12_0000, 0x13_0000..0x20_0000, None),
        ("nothing of it", Some(0x5000), 0x6000, whole, None),
    ];
    for (why, stack, data, range, expected) in cases {
        let answer = answer_with(list, range, FaultsBy::Kernel, &[Thread { stack, data }]);
        assert_eq!(answer, expected, "{why}");
    }
}
