//! Whether memory can be adopted as shared, and how to find out which of its pages have contents.
//!
//! Kernel counterpart: `/proc/PID/maps`, `proc_pid_maps(5)`.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SealFlags};
use userfault_abi::errno::Errno;
use userfault_client::{Provider, Refusal, UffdError};

use super::system;
use crate::probe;
use crate::region::Contents;
use crate::states::PAGE_SIZE;

/// What the kernel says about a mapping, in `/proc/self/maps`.
pub(super) struct Found {
    device: String,
    inode: String,
    offset: u64,
}

impl Found {
    /// The line with all of these addresses, if it is one that may be written and is shared.
    fn of(maps: &str, addresses: &Range<usize>) -> Option<Self> {
        maps.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let number = |text| usize::from_str_radix(text, 16).ok();
            let (start, end) = (number(start)?, number(end)?);
            let allows = fields.next()?;
            if addresses.start < start || end < addresses.end || !(allows.starts_with("rw") && allows.ends_with('s')) {
                return None;
            }
            let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
            let offset = offset + (addresses.start - start) as u64;
            let (device, inode) = (fields.next()?.to_owned(), fields.next()?.to_owned());
            // System V's is attached and destroyed by other rules; the kernel refuses it, too.
            let is_system_v = fields.next().is_some_and(|name| name.starts_with("/SYSV"));
            (!is_system_v).then_some(Self { device, inode, offset })
        })
    }

    /// How to find contents, if `file` is what is mapped.
    pub(super) fn contents_of(&self, file: BorrowedFd<'_>) -> Result<Contents, UffdError> {
        let lost = |error: rustix::io::Errno| system("fstat", Errno::from_raw(error.raw_os_error()));
        let stat = rustix::fs::fstat(file).map_err(lost)?;
        let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        if self.device != format!("{major:02x}:{minor:02x}") || self.inode != stat.st_ino.to_string() {
            return Err(system("adopting the mapping of another file", Errno::EINVAL));
        }
        // Files that know no seals have none.
        let seals = rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty());
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            let remedy =
                "give a file without F_SEAL_WRITE and F_SEAL_FUTURE_WRITE: in such a one nobody can make holes";
            let refusal = Refusal { way: "adopt shared memory", errno: Errno::EPERM, remedy };
            return Err(UffdError::Refused { provider: Provider::Process, tried: vec![refusal] });
        }
        Ok(Contents::OfFile { file: reopened(file)?, start: self.offset })
    }
}

/// The mapping with these pages, if it is one of the kernel's own files in memory.
pub(super) fn adoptable(address: usize, pages: usize) -> Result<Found, Refusal> {
    let refused = |errno, remedy| Refusal { way: "adopt shared memory", errno, remedy };
    let scratch = probe::scratch_shared(1)?;
    let maps = std::fs::read_to_string("/proc/self/maps")
        .map_err(|_| refused(Errno::ENOENT, "mount /proc: it says what is mapped"))?;
    let end = pages.checked_mul(PAGE_SIZE).and_then(|len| address.checked_add(len));
    let found = end.and_then(|end| Found::of(&maps, &(address..end))).ok_or(refused(
        Errno::EINVAL,
        "give pages of one shared mapping that is readable and writable; for private memory see `adopt`",
    ))?;
    // Of other files a page that is not resident has contents on a disk.
    let ours = Found::of(&maps, &(scratch.base()..scratch.base() + scratch.len()));
    if ours.is_none_or(|ours| ours.device != found.device) {
        return Err(refused(
            Errno::EINVAL,
            "give anonymous shared memory, or a file made by memfd_create without huge pages",
        ));
    }
    Ok(found)
}

/// An open file of our own: seeking in it moves nobody else's offset.
pub(super) fn reopened(file: BorrowedFd<'_>) -> Result<OwnedFd, UffdError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| system("opening the file once more, in /proc", Errno::from_raw(error.raw_os_error())))
}
