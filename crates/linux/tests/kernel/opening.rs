//! Opening and the handshake.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use userfault_abi::OpenFlags;
use userfault_client::{
    Errno, Features, IoctlMask, KernelFaults, Options, Refusal, Region as _, RegisterModes, Uffd as _, UffdError,
};
use userfault_linux::{Handshake, Uffd, Way, probe, raw};

use crate::outside::{become_nobody, filter_userfaultfd};
use crate::support::{
    Rescue, alone, expect_success, full, is_alone, open, path_of, pattern, read, skip, start, until_asleep,
};

fn errnos(tried: &[Refusal]) -> Vec<(&'static str, Errno)> {
    tried.iter().map(|refusal| (refusal.way, refusal.errno)).collect()
}

// spec: m/open/flags, m/api/answer
#[test]
fn each_way_of_opening_gives_a_nonblocking_close_on_exec_descriptor() {
    for (kernel_faults, way) in [(KernelFaults::No, Way::UserModeCall), (KernelFaults::Require, Way::Call)] {
        let uffd = open!(&Options { kernel_faults, ..Options::default() });
        assert_eq!(uffd.way(), way);
        assert!(uffd.refusals().is_empty());
        assert!(rustix::fs::fcntl_getfl(&uffd).unwrap().contains(OFlags::NONBLOCK));
        assert_eq!(rustix::io::fcntl_getfd(&uffd).unwrap(), FdFlags::CLOEXEC);
        let offered = uffd.capabilities();
        assert_eq!(offered.kernel_faults, way == Way::Call);
        assert_eq!(offered.features, Features::NONE);
        assert!(offered.available.contains(Features::PAGEFAULT_FLAG_WP));
        assert_eq!(offered.modes, RegisterModes::MISSING | RegisterModes::WP);
        assert!(offered.ioctls.contains(IoctlMask::WAKE | IoctlMask::COPY | IoctlMask::ZEROPAGE));
        assert_eq!(offered.page_size, rustix::param::page_size());
    }
}

// spec: m/open/device
#[test]
fn the_device_gives_the_same_as_the_call() {
    let Ok(device) = rustix::fs::open("/dev/userfaultfd", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return skip("/dev/userfaultfd cannot be opened");
    };
    for (kernel_faults, way) in [
        (KernelFaults::No, Way::UserModeDevice),
        (KernelFaults::Try, Way::Device),
        (KernelFaults::Require, Way::Device),
    ] {
        let uffd = Uffd::open_on(&device, &Options { kernel_faults, ..Options::default() }).unwrap();
        assert_eq!(uffd.way(), way);
        assert!(rustix::fs::fcntl_getfl(&uffd).unwrap().contains(OFlags::NONBLOCK));
        let region = uffd.map(1, RegisterModes::MISSING).unwrap();
        region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
        assert_eq!(region.window(0..1).unwrap().as_ref(), pattern(0, 0));
    }
}

#[test]
fn a_file_that_is_not_the_device_is_a_refusal_with_a_remedy() {
    let file = rustix::fs::memfd_create("not a device", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let error = Uffd::open_on(&file, &Options::default()).unwrap_err();
    let UffdError::Refused { tried, .. } = error else { panic!("{error}") };
    assert_eq!(errnos(&tried), [(Way::UserModeDevice.name(), Errno::ENOTTY)]);
}

// spec: m/open/permission
#[test]
fn a_probe_says_for_each_way_what_it_offers() {
    drop(open!(&full()));
    let probes = probe();
    assert_eq!(probes.iter().map(|probe| probe.way).collect::<Vec<_>>(), Way::ALL);
    for probe in &probes[..2] {
        let offered = probe.outcome.as_ref().unwrap();
        assert_eq!(offered.kernel_faults, probe.way == Way::Call);
        assert!(offered.modes.contains(RegisterModes::MISSING));
    }
}

// spec: m/open/permission, m/open/device
#[test]
fn nobody_is_refused_kernel_faults_by_both_ways_and_told_each_reason() {
    alone!(nobody_is_refused_kernel_faults_by_both_ways_and_told_each_reason, {
        drop(open!(&full()));
        if std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|text| text.trim() != "0") {
            return skip("vm.unprivileged_userfaultfd is on");
        }
        become_nobody();
        let both = [("userfaultfd(2)", Errno::EPERM), ("/dev/userfaultfd", Errno::EACCES)];
        let error = Uffd::open(&full()).unwrap_err();
        let UffdError::Refused { tried, .. } = &error else { panic!("{error}") };
        assert_eq!(errnos(tried), both);
        let text = error.to_string();
        for remedy in ["sysctl vm.unprivileged_userfaultfd=1", "chmod 0660 /dev/userfaultfd"] {
            assert!(text.contains(remedy), "{text}");
        }

        // Trying falls back to user mode and keeps both reasons.
        let tries = Options { kernel_faults: KernelFaults::Try, ..Options::default() };
        let uffd = Uffd::open(&tries).unwrap();
        assert_eq!(errnos(uffd.refusals()), both);
        assert_eq!((uffd.way(), uffd.capabilities().kernel_faults), (Way::UserModeCall, false));

        let outcomes: Vec<_> =
            probe().into_iter().map(|probe| probe.outcome.map_err(|refusal| refusal.errno)).collect();
        assert!(outcomes[0].is_ok());
        assert_eq!(outcomes[1].as_ref().unwrap_err(), &Errno::EPERM);
        assert_eq!(outcomes[2].as_ref().unwrap_err(), &Errno::EACCES);
        assert_eq!(outcomes[3].as_ref().unwrap_err(), &Errno::EACCES);
    });
}

// spec: m/open/device
#[test]
fn nobody_who_was_handed_the_device_gets_kernel_faults() {
    alone!(nobody_who_was_handed_the_device_gets_kernel_faults, {
        let Ok(device) = rustix::fs::open("/dev/userfaultfd", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            return skip("/dev/userfaultfd cannot be opened");
        };
        become_nobody();
        let uffd = Uffd::open_on(&device, &full()).unwrap();
        assert!(uffd.capabilities().kernel_faults);
    });
}

/// Opens where userfaultfd(2) with these flags is refused with `errno`; the device is root's.
fn open_filtered(flags: u32, errno: Errno, options: &Options) -> Option<Uffd> {
    if !rustix::process::geteuid().is_root() || probe().iter().any(|probe| probe.outcome.is_err()) {
        skip("not every way of opening works here");
        return None;
    }
    if !filter_userfaultfd(flags, errno) {
        skip("the kernel has no seccomp filters");
        return None;
    }
    Some(Uffd::open(options).unwrap())
}

// spec: m/open/device, m/open/permission
#[test]
fn where_the_call_is_filtered_the_device_is_used_and_the_reason_kept() {
    alone!(where_the_call_is_filtered_the_device_is_used_and_the_reason_kept, {
        let options = Options { kernel_faults: KernelFaults::Try, ..Options::default() };
        let Some(uffd) = open_filtered(u32::MAX, Errno::EPERM, &options) else { return };
        assert_eq!((uffd.way(), errnos(uffd.refusals())), (Way::Device, vec![("userfaultfd(2)", Errno::EPERM)]));
        // Root has the capability.
        assert!(!uffd.refusals()[0].remedy.contains("or give"), "{}", uffd.refusals()[0]);

        let uffd = Uffd::open(&Options::default()).unwrap();
        assert_eq!(uffd.way(), Way::UserModeDevice);
        assert!(uffd.refusals()[0].remedy.contains("--security-opt seccomp"));
        assert!(!uffd.capabilities().kernel_faults);

        // And where the device is no way either, both reasons are told.
        become_nobody();
        let UffdError::Refused { tried, .. } = Uffd::open(&Options::default()).unwrap_err() else { panic!("refused") };
        let names = [Way::UserModeCall.name(), Way::UserModeDevice.name()];
        assert_eq!(errnos(&tried), [(names[0], Errno::EPERM), (names[1], Errno::EACCES)]);
    });
}

#[test]
fn a_kernel_without_the_call_is_passed_over_like_one_that_forbids_it() {
    alone!(a_kernel_without_the_call_is_passed_over_like_one_that_forbids_it, {
        let Some(uffd) = open_filtered(u32::MAX, Errno::ENOSYS, &Options::default()) else { return };
        assert_eq!(uffd.way(), Way::UserModeDevice);
        assert!(uffd.refusals()[0].remedy.contains("CONFIG_USERFAULTFD"));
    });
}

#[test]
fn a_kernel_that_does_not_know_the_flag_is_asked_without_it_and_that_is_told() {
    alone!(a_kernel_that_does_not_know_the_flag_is_asked_without_it_and_that_is_told, {
        let flag = OpenFlags::USER_MODE_ONLY.bits();
        let Some(uffd) = open_filtered(flag, Errno::EINVAL, &Options::default()) else { return };
        assert_eq!(uffd.way(), Way::Call);
        assert!(uffd.capabilities().kernel_faults);
        assert_eq!(errnos(uffd.refusals()), [(Way::UserModeCall.name(), Errno::EINVAL)]);
    });
}

// spec: m/api/fork-permission
#[test]
fn nobody_may_wish_for_fork_events_but_not_require_them() {
    alone!(nobody_may_wish_for_fork_events_but_not_require_them, {
        drop(open!());
        become_nobody();
        let wish = Features::EVENT_FORK | Features::EVENT_REMOVE;
        let uffd = Uffd::open(&Options { wish, ..Options::default() }).unwrap();
        assert_eq!(uffd.capabilities().features, Features::EVENT_REMOVE);

        let error = Uffd::open(&Options { require: wish, ..Options::default() }).unwrap_err();
        let UffdError::Refused { tried, .. } = &error else { panic!("{error}") };
        assert_eq!(errnos(tried), [("UFFDIO_API", Errno::EPERM)]);
    });
}

// spec: m/api/order, m/api/state
#[test]
fn a_feature_that_nobody_knows_is_missing_if_required_and_off_if_wished() {
    let unknown = Features::from_bits(1 << 40);
    let uffd = open!(&Options { wish: unknown | Features::THREAD_ID, ..Options::default() });
    assert_eq!(uffd.capabilities().features, Features::THREAD_ID);
    let error = Uffd::open(&Options { require: unknown, ..Options::default() }).unwrap_err();
    assert_eq!(error, UffdError::FeaturesMissing { missing: unknown });
}

// spec: m/api/implied, m/fdinfo
#[test]
fn features_that_others_imply_are_reported_as_on() {
    let uffd = open!(&Options { require: Features::WP_ASYNC, ..Options::default() });
    assert_eq!(uffd.capabilities().features, Features::WP_ASYNC | Features::WP_UNPOPULATED);
}

// spec: m/api/once, m/poll/before
#[test]
fn a_descriptor_made_elsewhere_is_taken_over_before_or_after_its_handshake() {
    let flags = OpenFlags::USER_MODE_ONLY; // blocking, and kept over exec
    drop(open!());
    let options = Options { require: Features::THREAD_ID, ..Options::default() };
    let first = Uffd::from_fd(raw::create(flags).unwrap(), &Handshake::ToDo(options.clone())).unwrap();
    assert!(rustix::fs::fcntl_getfl(&first).unwrap().contains(OFlags::NONBLOCK));
    assert_eq!(rustix::io::fcntl_getfd(&first).unwrap(), FdFlags::CLOEXEC);
    assert_eq!(first.way(), Way::Given);

    let copy = first.as_fd().try_clone_to_owned().unwrap();
    let second = Uffd::from_fd(copy, &Handshake::Done).unwrap();
    assert_eq!(second.capabilities().features, Features::THREAD_ID);
    assert!(second.capabilities().available.contains(Features::PAGEFAULT_FLAG_WP));

    // What is said about the handshake must be so.
    let copy = first.as_fd().try_clone_to_owned().unwrap();
    assert!(matches!(
        Uffd::from_fd(copy, &Handshake::ToDo(options)),
        Err(UffdError::System { errno: Errno::EINVAL, .. })
    ));
    let fresh = raw::create(flags).unwrap();
    assert!(matches!(Uffd::from_fd(fresh, &Handshake::Done), Err(UffdError::System { errno: Errno::EINVAL, .. })));
    let other = rustix::fs::memfd_create("no uffd", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert!(matches!(Uffd::from_fd(other, &Handshake::Done), Err(UffdError::System { errno: Errno::EINVAL, .. })));
}

// spec: m/open/flags
#[test]
fn the_raw_call_answers_as_the_kernel_does() {
    drop(open!());
    assert_eq!(raw::create(OpenFlags::USER_MODE_ONLY | OpenFlags::from_bits(0x1000)).unwrap_err(), Errno::EINVAL);
    let descriptor = raw::create(OpenFlags::USER_MODE_ONLY).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&descriptor).unwrap().contains(OFlags::NONBLOCK));
    assert!(!rustix::io::fcntl_getfd(&descriptor).unwrap().contains(FdFlags::CLOEXEC));
}

// spec: m/fault/user-mode-only
#[test]
fn for_user_mode_only_a_system_call_on_a_missing_page_fails() {
    let uffd = open!();
    let region = uffd.map(1, RegisterModes::MISSING).unwrap();
    let mut window = region.window(0..1).unwrap();
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    assert_eq!(rustix::io::read(&zeros, window.as_mut()), Err(rustix::io::Errno::FAULT));
    assert_eq!(uffd.info().unwrap().total, 0);
    region.copy(0, &pattern(0, 0)).unwrap().complete().unwrap();
    assert_eq!(rustix::io::read(&zeros, &mut window.as_mut()[..100]), Ok(100));
    assert_eq!(window.as_ref()[..100], [0; 100]);
    assert_eq!(window.as_ref()[100..], pattern(0, 0)[100..]);
}

// spec: m/fault/kernel
#[test]
fn with_kernel_faults_a_system_call_on_a_missing_page_waits_for_its_answer() {
    let uffd = open!(&full());
    let region = uffd.map(1, RegisterModes::MISSING).unwrap();
    let window = region.window(0..1).unwrap();
    let (out, into) = rustix::pipe::pipe().unwrap();
    std::thread::scope(|scope| {
        let _rescue = Rescue(&region);
        let writer = scope.spawn(|| rustix::io::write(&into, &window.as_ref()[..512]));
        until_asleep(&uffd, 1);
        assert_eq!(read(&uffd, 1).len(), 1);
        region.copy(0, &pattern(0, 3)).unwrap().complete().unwrap();
        assert_eq!(writer.join().unwrap(), Ok(512));
    });
    let mut seen = [0; 512];
    assert_eq!(rustix::io::read(&out, &mut seen), Ok(512));
    assert_eq!(seen, pattern(0, 3)[..512]);
}

// spec: m/open/order, m/close/last
#[test]
fn no_descriptor_stays_open_after_success_or_failure() {
    if !is_alone() {
        return expect_success(&start(&path_of(&no_descriptor_stays_open_after_success_or_failure)));
    }
    drop(open!());
    let before = crate::support::open_descriptors();
    for _ in 0..3 {
        drop(probe());
        drop(Uffd::open(&full()));
        let required = Features::from_bits(1 << 40);
        drop(Uffd::open(&Options { require: required, ..Options::default() }));
        drop(Uffd::from_fd(raw::create(OpenFlags::USER_MODE_ONLY).unwrap(), &Handshake::Done));
        let uffd = Uffd::open(&Options::default()).unwrap();
        let region = uffd.map(1, RegisterModes::MISSING).unwrap();
        drop(uffd);
        // The region and then the window keep the context, and with it the page missing.
        let window = region.window(0..1).unwrap();
        drop(region);
        assert!(crate::support::open_descriptors() > before);
        drop(window);
        assert!(matches!(open_with_a_bad_mode(), UffdError::ModesUnsupported { .. }));
    }
    assert_eq!(crate::support::open_descriptors(), before);
}

fn open_with_a_bad_mode() -> UffdError {
    let uffd = Uffd::open(&Options::default()).unwrap();
    uffd.map(1, RegisterModes::MINOR).unwrap_err()
}
