//! What the host does where the machine refuses something.

use std::os::unix::process::CommandExt as _;

use userfault_abi::errno::Errno;
use userfault_abi::{CopyModes, RegisterModes};
use userfault_client::{Options, Provider, Refusal, Region as _, UffdError};
use userfault_process::{Tuning, Uffd, tune};

use crate::access::load;
use crate::alone::{alone, command};
use crate::os;
use crate::seccomp::{Rule, allow, install, refuse, refuse_if};
use crate::support::{CHUNK, PAGE, fill, map, mappings, open, page_of, read, status_kb, word};

/// A fault, a fill and a discard, with every word looked at; a scattered chunk, too.
fn round_trip() -> usize {
    round_trip_counting(mappings)
}

fn round_trip_counting(mappings: impl Fn() -> usize) -> usize {
    let uffd = open();
    let region = map(&uffd, CHUNK);
    let base = region.base();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || load(base + 5 * PAGE + 80));
        let events = read(&uffd, 1);
        assert_eq!(page_of(&region, &events[0]), 5);
        fill(&region, 5, 1);
        assert_eq!(reader.join().unwrap(), word(5, 1));
    });
    let mut window = region.window(0..CHUNK).unwrap();
    region.discard(&mut window, 5..6).unwrap();
    let before = mappings();
    (0..CHUNK).step_by(2).for_each(|page| fill(&region, page, 2));
    let grown = mappings().saturating_sub(before);
    (0..CHUNK).step_by(2).for_each(|page| assert_eq!(load(base + page * PAGE), word(page, 2)));
    grown
}

/// How opening is refused.
fn refusals(rules: &[Rule]) -> Vec<Refusal> {
    // Threads are made before the filter, or not at all.
    install(rules, 0);
    match Uffd::open(&Options::default()) {
        Err(UffdError::Refused { provider: Provider::Process, tried }) => tried,
        other => panic!("{other:?}"),
    }
}

/// How opening is refused, if there is one reason.
fn refusal(rules: &[Rule]) -> (&'static str, Errno, &'static str) {
    let tried = refusals(rules);
    let [refusal] = &tried[..] else { panic!("{tried:?}") };
    (refusal.way, refusal.errno, refusal.remedy)
}

// spec: H9
#[test]
fn where_guard_markers_are_refused_the_host_works_without_them() {
    alone(|| {
        install(&[refuse_if(libc::SYS_madvise, 2, 102, libc::EINVAL)], 0);
        let grown = round_trip();
        assert!(grown > 400, "a mapping for each page, {grown}");
    });
}

// spec: H9
#[test]
fn where_guard_markers_cannot_be_removed_the_host_works_without_them() {
    alone(|| {
        install(&[refuse_if(libc::SYS_madvise, 2, 103, libc::EPERM)], 0);
        assert!(round_trip() > 400);
    });
}

// spec: H9, H4
#[test]
fn with_guard_markers_a_scattered_chunk_is_one_mapping() {
    alone(|| assert!(round_trip() < 10));
}

const NO_FORCED_WRITES: Rule = refuse(libc::SYS_pwrite64, libc::EIO);

// spec: H9
#[test]
fn where_its_own_mem_file_cannot_be_opened_pages_are_made_ready_in_a_mirror() {
    alone(|| {
        install(&[refuse(libc::SYS_openat, libc::EACCES)], 0);
        // Without /proc there is no other way to count mappings.
        let _not_counted = round_trip_counting(|| 0);
    });
}

// spec: H9, H4
#[test]
fn where_forced_writes_are_refused_pages_are_made_ready_in_a_mirror_and_a_scattered_chunk_is_one_mapping() {
    alone(|| {
        install(&[NO_FORCED_WRITES], 0);
        assert!(round_trip() < 10);
    });
}

// spec: H9
#[test]
fn where_forced_writes_and_guard_markers_are_refused_the_host_works_without_both() {
    alone(|| {
        install(&[NO_FORCED_WRITES, refuse_if(libc::SYS_madvise, 2, 102, libc::EINVAL)], 0);
        assert!(round_trip() > 400);
    });
}

// spec: H9
#[test]
fn where_its_own_memory_cannot_be_copied_directly_bytes_go_through_a_pipe() {
    alone(|| {
        install(&[NO_FORCED_WRITES, refuse(libc::SYS_process_vm_readv, libc::EPERM)], 0);
        assert!(round_trip() < 10);
    });
}

// spec: H9
#[test]
fn where_nothing_brings_pages_the_host_is_refused_with_each_way_and_the_remedy() {
    alone(|| {
        let mremap = refuse(libc::SYS_mremap, libc::EPERM);
        let [forced, mirror] = &refusals(&[NO_FORCED_WRITES, mremap])[..] else { panic!("two ways") };
        assert_eq!((forced.way, forced.errno), ("write to inaccessible pages through /proc/self/mem", Errno::EIO));
        assert!(forced.remedy.contains("proc_mem.force_override"), "{forced:?}");
        assert_eq!(mirror.errno, Errno::EPERM);
        assert!(mirror.way.contains("MREMAP_DONTUNMAP") && mirror.remedy.contains("5.7"), "{mirror:?}");
    });
}

// spec: H9
#[test]
fn where_the_mem_file_cannot_be_opened_and_no_call_copies_bytes_both_are_named() {
    alone(|| {
        let refuse_both = [libc::SYS_process_vm_readv, libc::SYS_pipe2].map(|call| refuse(call, libc::EPERM));
        let open = refuse(libc::SYS_openat, libc::EACCES);
        let [forced, copy] = &refusals(&[open, refuse_both[0], refuse_both[1]])[..] else { panic!("two ways") };
        assert_eq!((forced.way, forced.errno), ("open /proc/self/mem", Errno::EACCES));
        assert!(forced.remedy.contains("/proc"), "{forced:?}");
        assert_eq!((copy.way, copy.errno), ("copy one's own memory by process_vm_readv or a pipe", Errno::EPERM));
    });
}

// spec: H9, H10
#[test]
fn where_no_page_can_tell_a_forked_child_the_host_is_refused_with_the_way_and_the_remedy() {
    alone(|| {
        let (way, errno, remedy) = refusal(&[refuse_if(libc::SYS_madvise, 2, 18, libc::EINVAL)]);
        assert_eq!((way, errno), ("a page that the kernel empties at fork (MADV_WIPEONFORK)", Errno::EINVAL));
        assert!(remedy.contains("4.14"), "{remedy}");
    });
}

// spec: H9
#[test]
fn where_no_handler_can_be_installed_the_host_is_refused_with_the_errno_of_the_system() {
    alone(|| {
        let (way, errno, _) = refusal(&[refuse(libc::SYS_rt_sigaction, libc::EPERM)]);
        assert_eq!((way, errno), ("SIGSEGV handler", Errno::from_raw(libc::EPERM)));
        // Whoever asks again and again is refused again, and loses nothing by it.
        let before = status_kb("VmSize");
        (0..10).for_each(|_| assert!(Uffd::open(&Options::default()).is_err()));
        let after = status_kb("VmSize");
        assert!(after < before + 1024, "{before} kB became {after}");
    });
}

// spec: H9
#[test]
fn after_the_first_open_the_host_is_not_tuned_any_more() {
    alone(|| {
        let _uffd = open();
        let late = tune(Tuning { mapping_budget: Some(1), ..Tuning::default() });
        assert!(matches!(late, Err(UffdError::System { errno: Errno::EBUSY, .. })), "{late:?}");
    });
}

/// Docker's default profile, as far as a Rust program and this host are concerned: what it lists is
/// allowed, everything else is EPERM. `userfaultfd`, `ptrace`, `process_vm_readv` are not in it.
const DOCKER: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_openat,
    libc::SYS_open,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_ioctl,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_access,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_select,
    libc::SYS_sched_yield,
    libc::SYS_mremap,
    libc::SYS_mincore,
    libc::SYS_madvise,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_nanosleep,
    libc::SYS_alarm,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_fcntl,
    libc::SYS_getdents64,
    libc::SYS_readlink,
    libc::SYS_getuid,
    libc::SYS_getgid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_gettid,
    libc::SYS_sigaltstack,
    libc::SYS_prctl,
    libc::SYS_arch_prctl,
    libc::SYS_setrlimit,
    libc::SYS_prlimit64,
    libc::SYS_futex,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_getrandom,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_rseq,
    libc::SYS_clone,
    libc::SYS_execve,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    libc::SYS_unlink,
];

const STAGE: &str = "USERFAULT_STAGE";
const NOBODY: u32 = 65534;

/// The test in stages: become nobody; start anew, since who changed its user may not open its own mem file;
/// install the profile; work.
fn in_a_container<F: FnOnce()>(body: F) {
    if std::env::var_os(STAGE).is_none() {
        if os::user() == 0 {
            os::become_user(NOBODY);
        }
        let error = command::<F>().env(STAGE, "2").exec();
        panic!("{error}");
    }
    assert_ne!(os::user(), 0, "without privilege");
    let rules: Vec<_> = DOCKER.iter().copied().map(allow).collect();
    // An unknown `clone3` must say ENOSYS, as the profile does: the C library then takes `clone`.
    install(&[&[refuse(libc::SYS_clone3, libc::ENOSYS)][..], &rules].concat(), libc::EPERM);
    body();
}

// spec: H9
#[test]
fn under_dockers_default_profile_an_unprivileged_process_faults_and_fills() {
    alone(|| in_a_container(|| assert!(round_trip() < 10)));
}

// spec: H9
#[test]
fn under_dockers_default_profile_pages_can_be_made_ready_in_a_mirror_through_a_pipe() {
    alone(|| {
        in_a_container(|| {
            tune(Tuning { without_forced_writes: true, ..Tuning::default() }).unwrap();
            assert!(round_trip() < 10);
        });
    });
}

// spec: H9, H20
#[test]
fn under_dockers_default_profile_shared_memory_faults_and_fills() {
    alone(|| {
        in_a_container(|| {
            let uffd = open();
            let region = uffd.map_shared(CHUNK, RegisterModes::MISSING).unwrap();
            let base = region.base();
            std::thread::scope(|scope| {
                let reader = scope.spawn(move || load(base + 5 * PAGE + 80));
                assert_eq!(crate::adopting::page_of(&region, &read(&uffd, 1)[0]), 5);
                for page in (1..CHUNK).step_by(2) {
                    let bytes = crate::support::contents(page, 1);
                    assert_eq!(region.copy(page, &bytes, CopyModes::NONE).unwrap().complete(), Ok(1));
                }
                assert_eq!(reader.join().unwrap(), word(5, 1));
            });
            (1..CHUNK).step_by(2).for_each(|page| assert_eq!(load(base + page * PAGE), word(page, 1)));
        });
    });
}
