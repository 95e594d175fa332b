//! What this machine can do, found by doing it on scratch pages (H9).
//!
//! A version number proves nothing: forced writes can be refused by a boot option, guard markers by the
//! kernel's age, anything by a sandbox.

use userfault_abi::errno::Errno;
use userfault_client::Refusal;
use userfault_memory::{Mapping, Protection, page_size};

use crate::machine::Machine;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Access, Span};

/// Whether the host knows this kind of machine at all.
pub(crate) fn platform() -> Result<(), Refusal> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Refusal {
            way: "process provider",
            errno: Errno::ENOSYS,
            remedy: "it decodes faults of x86-64 only; use the linux provider here",
        });
    }
    if page_size() != PAGE_SIZE {
        return Err(Refusal {
            way: "process provider",
            errno: Errno::ENOSYS,
            remedy: "it knows pages of 4 KiB only; use the linux provider here",
        });
    }
    Ok(())
}

/// Tries forced writes, without which nothing works, and guard markers, without which more mappings
/// are used.
pub(crate) fn mechanisms(machine: &mut Machine) -> Result<(), Refusal> {
    let refused = |errno| Refusal {
        way: "write to inaccessible pages through /proc/self/mem",
        errno,
        remedy: "boot without proc_mem.force_override=never, or leave the sandbox that refuses it",
    };
    let scratch = Mapping::reserve(2 * PAGE_SIZE, Protection::None).map_err(|_| refused(Errno::ENOMEM))?;
    forced_write(machine, &scratch).map_err(|errno| match errno {
        Errno::EMFILE | Errno::ENFILE => Refusal {
            way: "a pipe to probe the machine with",
            errno,
            remedy: "raise the limit of open files (ulimit -n)",
        },
        errno => refused(errno),
    })?;
    machine.guards &= guards(&scratch).is_ok();
    Ok(())
}

/// Writes through PROT_NONE, opens the page, reads it back.
fn forced_write(machine: &Machine, scratch: &Mapping) -> Result<(), Errno> {
    let page = Span::scratch(scratch, 0);
    let bytes = [0x5a_u8; PAGE_SIZE];
    machine.write(bytes.as_ptr(), page).map_err(|(_, errno)| errno)?;
    sys::protect(page, Access::Read)?;
    let mut read = [0_u8; PAGE_SIZE];
    sys::copy_in(page.start(), &mut read)?;
    if read == bytes { Ok(()) } else { Err(Errno::EIO) }
}

/// Puts a guard on a page, sees that it cannot be read although its mapping could, takes it away.
fn guards(scratch: &Mapping) -> Result<(), Errno> {
    let page = Span::scratch(scratch, 1);
    sys::guard(page)?;
    sys::protect(page, Access::ReadWrite)?;
    let mut byte = [0];
    let is_guarded = sys::copy_in(page.start(), &mut byte) == Err(Errno::EFAULT);
    sys::unguard(page)?;
    let is_free = sys::copy_in(page.start(), &mut byte).is_ok();
    if is_guarded && is_free { Ok(()) } else { Err(Errno::EINVAL) }
}
