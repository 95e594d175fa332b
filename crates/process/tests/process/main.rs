//! The engine on real faults in real processes.
//!
//! The host is one per process and its handler is for ever, so nearly every test runs its body in a child
//! of its own: the same test binary, told by an environment variable to run that one test's closure. A
//! child that hangs is killed by SIGALRM; that clock can only fail a test. "Asleep" is read from the
//! host's statistics. Random numbers come from a seed that is printed; set `USERFAULT_SEED` to repeat it.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a call that fails unexpectedly fails its test")]

mod access;
mod adopt;
mod adopt_heap;
mod adopt_hooks;
mod adopt_refused;
mod adopting;
mod alone;
mod budget;
mod children;
mod close;
mod conversion;
mod crash;
mod door;
mod etiquette;
mod failing;
mod foreign;
mod fork;
mod hammer;
mod inline;
mod instructions;
mod interrupts;
mod jump;
mod leaving;
mod malloc;
mod mechanisms;
mod mirror;
mod monitors;
mod nest;
mod os;
mod own_protection;
mod poison;
mod previous;
mod probes;
mod ready;
mod seccomp;
mod shared;
mod sleepers;
mod storm;
mod support;
