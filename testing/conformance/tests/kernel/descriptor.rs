//! The descriptor as a file, and the device.

use std::ffi::CString;

use userfault_abi::request;
use userfault_conformance::place::Thread;
use userfault_conformance::real::sys;
use userfault_conformance::real::worker::{Waits, Worker};
use userfault_conformance::suite::skipped;

use super::common::*;

// spec(kernel): m/open/device-flags
#[test]
fn the_device_knows_one_request_and_cuts_its_argument() {
    let device = match sys::open(&CString::new("/dev/userfaultfd").unwrap()) {
        Ok(device) => device,
        Err(errno) => return skipped(&format!("/dev/userfaultfd: errno {errno}")),
    };
    for unknown in [2, 4, 0x400, 0x8000_0000, 0xFFFF_FFFF] {
        assert_eq!(sys::ioctl(device, request::NEW, unknown), Err(libc::EINVAL), "{unknown:#x}");
    }
    let fd = sys::ioctl(device, request::NEW, 1 << 32 | 0x8_0800).unwrap();
    assert_eq!(sys::flags(fd).0, libc::FD_CLOEXEC);
    assert_eq!(sys::flags(fd).1 & libc::O_NONBLOCK, libc::O_NONBLOCK);
    for other in [request::API, request::NEW + 1, request::NEW | 1 << 30, 0] {
        assert_eq!(sys::ioctl(device, other, 0), Err(libc::EINVAL), "{other:#x}");
    }
    assert_eq!(sys::read(device, map(1), 8), Err(libc::EINVAL));
    assert_eq!(sys::on_descriptor(libc::SYS_write, device, [map(1), 8, 0]), Err(libc::EINVAL));
    sys::close(fd);
    sys::close(device);
}

// spec(kernel): m/open/object, m/open/flags
#[test]
fn the_descriptor_is_a_read_only_anonymous_file() {
    let Some(fd) = ready(0) else { return };
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    assert_eq!(name.to_str(), Some("anon_inode:[userfaultfd]"));
    assert_eq!(sys::flags(fd).1 & libc::O_ACCMODE, libc::O_RDONLY);
    let memory = map(1);
    for (call, arguments, expected) in [
        (libc::SYS_write, [memory, 8, 0], Err(libc::EBADF)),
        (libc::SYS_pread64, [memory, 32, 0], Err(libc::ESPIPE)),
        (libc::SYS_lseek, [8, 0, 0], Ok(0)),
        (libc::SYS_ftruncate, [0, 0, 0], Err(libc::EINVAL)),
    ] {
        assert_eq!(sys::on_descriptor(call, fd, arguments), expected, "system call {call}");
    }
    let again = std::fs::File::open(format!("/proc/self/fd/{fd}"));
    assert_eq!(again.err().and_then(|error| error.raw_os_error()), Some(libc::ENXIO));
    sys::close(fd);
}

// spec(kernel): m/register/flags
#[test]
fn registrations_show_in_smaps() {
    let Some(fd) = ready(0) else { return };
    for (mode, shown) in [(1, (true, false)), (2, (false, true)), (3, (true, true))] {
        let memory = map(2);
        register(fd, memory, 2, mode).unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let entry = smaps.split_once(&format!("{memory:x}-")).unwrap().1;
        let flags = entry.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert_eq!((flags.contains(" um"), flags.contains(" uw")), shown, "mode {mode}");
    }
    sys::close(fd);
}

// spec(kernel): m/poll/epoll
#[test]
fn an_edge_comes_with_a_new_message_and_is_not_repeated() {
    let Some(fd) = ready(0) else { return };
    let memory = map(2);
    register(fd, memory, 2, 1).unwrap();
    let set = sys::edges_of(fd);
    assert_eq!(sys::edges(set), 0);
    let workers = [Worker::spawn(), Worker::spawn()];
    assert_eq!(loads(&workers[0], memory), Thread::Asleep);
    assert_eq!(sys::edges(set), 1);
    assert_eq!(sys::edges(set), 0, "unread, and not repeated");
    assert_eq!(loads(&workers[1], memory + PAGE), Thread::Asleep);
    assert_eq!(sys::edges(set), 1, "a new one is a new edge");
    assert_eq!(messages(fd), 2);
    assert_eq!(sys::edges(set), 0);
    sys::close(fd);
    sys::close(set);
}

// spec(kernel): m/poll/close, m/close/references
#[test]
fn a_poll_in_progress_keeps_the_context() {
    let Some(fd) = ready(0) else { return };
    let memory = map(1);
    register(fd, memory, 1, 1).unwrap();
    // A number that no other test gets once it is free again.
    let high = sys::on_descriptor(libc::SYS_fcntl, fd, [libc::F_DUPFD as u64, 800, 0]).unwrap();
    sys::close(fd);
    let fd = i32::try_from(high).unwrap();
    let (poller, reader) = (Worker::spawn(), Worker::spawn());
    poller.start(Box::new(move || Thread::Done(sys::wait_for_input(fd).unwrap_or(0))));
    let in_poll = |wchan: &str| if wchan.contains("poll") { Waits::InRead } else { Waits::No };
    assert_eq!(poller.settle(in_poll), Thread::Reading);
    sys::close(fd);
    assert_eq!(poller.settle(in_poll), Thread::Reading, "the close alone ends nothing");
    // The fault makes poll look again: the number is gone, and with it, now, the context.
    reader.start(Box::new(move || {
        userfault_conformance::real::worker::ended(userfault_conformance::real::access::load(memory))
    }));
    assert_eq!(reader.settle(|_| Waits::No), Thread::Done(0));
    assert_eq!(poller.settle(in_poll), Thread::Done(u64::from(libc::POLLNVAL.cast_unsigned())));
}
