//! A SIGBUS of our own making that looks as the kernel's does.
//!
//! Invariant:
//!
//! 1. On 64-bit Linux `si_addr` lies 16 bytes into `siginfo_t`, behind three integers and their padding.
//!
//! Kernel counterpart: `force_sig_fault(SIGBUS, BUS_ADRERR, address)`.
#![expect(unsafe_code, reason = "writes one field of siginfo_t; the invariant above is this file's proof")]

use std::mem;
use std::ptr;

use libc::siginfo_t;

use crate::context::FaultContext;
use crate::handler::Signal;
use crate::sys;

const ADDRESS_OFFSET_BYTES: usize = 16;
const _: () = assert!(size_of::<siginfo_t>() >= ADDRESS_OFFSET_BYTES + size_of::<usize>(), "invariant 1");
const _: () = assert!(size_of::<usize>() == 8, "invariant 1");

impl FaultContext<'_> {
    /// Raises SIGBUS with `BUS_ADRERR` at `address`, the exact byte, to be delivered when this handler
    /// returns, before the instruction repeats. Return [`Handled`](crate::Disposition::Handled) after it.
    ///
    /// If the interrupted code blocks SIGBUS, or the program ignores it, the process dies by it instead, as
    /// with the kernel: otherwise the instruction would fault for ever.
    ///
    /// # Source
    ///
    /// `rt_tgsigqueueinfo(2)`; `spec/host.md`, H33.
    pub fn raise_bus_error(&mut self, address: usize) {
        let bus = libc::SIGBUS;
        // Blocked until the handler returns: delivered in here, it would name an instruction of ours.
        sys::block(crate::SignalSet::EMPTY.with(bus));
        self.has_raised = true;
        let is_queued = sys::queue_to_self(Signal::Bus, &bus_error_at(address)).is_ok();
        if !is_queued {
            sys::send_to_self(Signal::Bus);
        }
        let is_ignored = sys::action(Signal::Bus).is_ok_and(|action| action.handler == libc::SIG_IGN);
        let mask = self.interrupted_mask();
        if is_ignored || !is_queued || mask.contains(bus) {
            let _ = sys::set_default(Signal::Bus);
            self.set_interrupted_mask(mask.without(bus));
        }
    }
}

fn bus_error_at(address: usize) -> siginfo_t {
    // SAFETY: integers: zero is a value.
    let mut info: siginfo_t = unsafe { mem::zeroed() };
    info.si_signo = libc::SIGBUS;
    info.si_code = libc::BUS_ADRERR;
    // SAFETY: within the structure, by the assertion above.
    let place = unsafe { ptr::from_mut(&mut info).byte_add(ADDRESS_OFFSET_BYTES) };
    // SAFETY: the address field lies there (invariant 1), and is aligned as the structure is.
    unsafe { place.cast::<usize>().write(address) };
    info
}
