//! `probe()`: what it says of each mechanism is so, and it needs no host.

use std::collections::BTreeMap;

use userfault_client::{Errno, Options, Refusal, UffdError};
use userfault_memory::{Mapping, Protection};
use userfault_process::{Uffd, probe};

use crate::alone::alone;
use crate::os;
use crate::seccomp::{Rule, install, refuse, refuse_if};
use crate::support::{PAGE, open};

/// Those that do not work here.
fn refused() -> BTreeMap<&'static str, Refusal> {
    probe().into_iter().filter_map(|mechanism| Some((mechanism.name, mechanism.outcome.err()?))).collect()
}

/// What the kernel under this test lacks by itself.
fn before() -> Vec<&'static str> {
    refused().into_keys().collect()
}

/// Under the rules exactly `expected` do not work any more: a name, the errno, a word of the remedy.
fn breaks(rules: &[Rule], expected: &[(&str, Errno, &str)]) {
    let before = before();
    install(rules, 0);
    let mut now = refused();
    now.retain(|name, _| !before.contains(name));
    for (name, errno, word) in expected.iter().filter(|(name, ..)| !before.contains(name)) {
        let refusal = now.remove(name).unwrap_or_else(|| panic!("{name} works"));
        assert_eq!(refusal.errno, *errno, "{name}: {refusal}");
        assert!(refusal.remedy.contains(word), "{name}: {refusal}");
    }
    assert!(now.is_empty(), "{now:?}");
}

// spec: H9
#[test]
fn every_mechanism_has_one_name_and_a_use_and_those_of_old_kernels_work() {
    alone(|| {
        let all = probe();
        let names: BTreeMap<_, _> = all.iter().map(|mechanism| (mechanism.name, mechanism.needed_for)).collect();
        assert_eq!(names.len(), all.len(), "no name twice");
        assert!(names.values().all(|needed_for| !needed_for.is_empty()));
        // Linux 5.7 and /proc have these; the others depend on the kernel.
        for name in ["platform", "proc", "copy", "mirror", "alias", "pagemap", "wipe-on-fork", "mappings", "sigsegv"] {
            let mechanism = all.iter().find(|mechanism| mechanism.name == name).unwrap();
            assert_eq!(mechanism.outcome, Ok(()), "{name}");
        }
        assert!(userfault_process::statistics().is_none(), "nothing was opened");
    });
}

// spec: H9
#[test]
fn what_is_probed_leaves_nothing_behind() {
    alone(|| {
        let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
        let maps = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        drop(probe());
        let before = (count("/proc/self/fd"), count("/proc/self/task"), maps());
        drop(probe());
        assert_eq!((count("/proc/self/fd"), count("/proc/self/task"), maps()), before);
        assert!(os::has_no_child());
    });
}

// spec: H9
#[test]
fn a_refused_write_to_the_mem_file_breaks_forced_writes_alone() {
    alone(|| {
        let expected = [("forced-write", Errno::EIO, "proc_mem.force_override")];
        breaks(&[refuse(libc::SYS_pwrite64, libc::EIO)], &expected);
    });
}

// spec: H9
#[test]
fn without_proc_all_that_reads_it_is_broken() {
    alone(|| {
        let errno = Errno::EACCES;
        let expected = [("proc", errno, "mount /proc"), ("forced-write", errno, "/proc"), ("pagemap", errno, "/proc")];
        breaks(&[refuse(libc::SYS_openat, errno.raw())], &expected);
    });
}

// spec: H9
#[test]
fn each_kind_of_mremap_is_a_mechanism_of_its_own() {
    alone(|| {
        let expected = [("alias", Errno::EPERM, "mremap")];
        breaks(&[refuse_if(libc::SYS_mremap, 1, 0, libc::EPERM)], &expected);
        let move_and_keep = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let rule = refuse_if(libc::SYS_mremap, 3, move_and_keep.cast_unsigned(), libc::EINVAL);
        breaks(&[rule], &[("mirror", Errno::EINVAL, "5.7"), ("guarded-mirror", Errno::EINVAL, "5.7")]);
    });
}

/// What guards are part of.
fn guards(errno: Errno) -> [(&'static str, Errno, &'static str); 3] {
    [("guard", errno, "6.13"), ("shared-guard", errno, "6.15"), ("guarded-mirror", errno, "mremap")]
}

// spec: H9
#[test]
fn refused_guard_markers_break_what_is_made_of_them() {
    alone(|| breaks(&[refuse_if(libc::SYS_madvise, 2, 102, libc::EINVAL)], &guards(Errno::EINVAL)));
}

// spec: H9
#[test]
fn guard_markers_that_cannot_be_removed_break_themselves_alone() {
    alone(|| breaks(&[refuse_if(libc::SYS_madvise, 2, 103, libc::EPERM)], &guards(Errno::EPERM)[..2]));
}

// spec: H9
#[test]
fn where_no_call_copies_bytes_all_that_needs_one_names_both() {
    alone(|| {
        let errno = Errno::EPERM;
        let copied = ["copy", "mirror", "guarded-mirror", "alias", "pagemap", "wipe-on-fork"];
        let expected = copied.map(|name| (name, errno, "one of the two"));
        // The pipe of who looks at the result has other flags.
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK).cast_unsigned();
        let rules =
            [refuse(libc::SYS_process_vm_readv, errno.raw()), refuse_if(libc::SYS_pipe2, 1, flags, errno.raw())];
        breaks(&rules, &expected);
    });
}

// spec: H9, H10
#[test]
fn a_page_that_cannot_be_emptied_at_fork_breaks_no_other_mechanism() {
    alone(|| breaks(&[refuse_if(libc::SYS_madvise, 2, 18, libc::EINVAL)], &[("wipe-on-fork", Errno::EINVAL, "4.14")]));
}

// spec: H9, H10
#[test]
fn where_no_child_can_be_made_nobody_knows_whether_pages_are_emptied_at_fork() {
    alone(|| breaks(&[refuse(libc::SYS_clone, libc::EPERM)], &[("wipe-on-fork", Errno::EPERM, "allow clone")]));
}

/// The kernel says yes and does nothing: only who looks at the result knows.
// spec: H9
#[test]
fn advice_that_is_accepted_and_not_followed_is_found() {
    alone(|| {
        let [guard, wipe] = [102, 18].map(|advice| refuse_if(libc::SYS_madvise, 2, advice, 0));
        let expected = [
            ("guard", Errno::EINVAL, "6.13"),
            ("shared-guard", Errno::EINVAL, "6.15"),
            ("wipe-on-fork", Errno::EIO, "4.14"),
        ];
        breaks(&[guard, wipe], &expected);
    });
}

// spec: H9, H4
#[test]
fn where_mappings_run_short_the_limit_is_named() {
    alone(|| {
        let limit: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
        let pages = Mapping::reserve((limit + 2) * PAGE, Protection::None).unwrap();
        let set = |page: usize, bits| os::protect(pages.base() + page * PAGE, PAGE, bits);
        let used = (0..).step_by(2).take_while(|page| set(*page, libc::PROT_READ).is_ok()).last().unwrap();
        // Room for everything else.
        (0..200).step_by(2).for_each(|page| set(used - page, libc::PROT_NONE).unwrap());
        let refused = refused();
        let refusal = &refused["mappings"];
        assert_eq!(refusal.errno, Errno::ENOMEM);
        assert!(refusal.remedy.contains("sysctl vm.max_map_count="), "{refusal}");
        assert!(!refused.contains_key("forced-write") && !refused.contains_key("mirror"), "{refused:?}");
    });
}

// spec: H27, H28
#[test]
fn who_blocks_or_takes_sigsegv_is_told() {
    alone(|| {
        os::set_blocked(libc::SIGSEGV, true);
        assert_eq!(refused()["sigsegv"].errno, Errno::EPERM);
        assert!(refused()["sigsegv"].remedy.contains("unblock"));
        os::set_blocked(libc::SIGSEGV, false);
        drop(open());
        assert!(!refused().contains_key("sigsegv"));
        os::set_action(libc::SIGSEGV, libc::abort as *const () as usize, 0);
        assert_eq!(refused()["sigsegv"].errno, Errno::EBUSY);
        assert!(refused()["sigsegv"].remedy.contains("accept_handler"));
    });
}

// spec: H9
#[test]
fn it_answers_where_the_provider_cannot_be_opened() {
    alone(|| {
        install(&[refuse(libc::SYS_pwrite64, libc::EIO), refuse(libc::SYS_mremap, libc::EPERM)], 0);
        assert!(matches!(Uffd::open(&Options::default()), Err(UffdError::Refused { .. })));
        let refused = refused();
        assert_eq!(refused["forced-write"].errno, Errno::EIO);
        assert_eq!(refused["mirror"].errno, Errno::EPERM);
        assert!(!refused.contains_key("pagemap"));
    });
}
