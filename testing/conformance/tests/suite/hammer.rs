//! A page is seen whole or not at all, however hard it is looked at.
//!
//! Readers look at the first, the last and some other word of a page while it is given back and filled
//! again and again. A fill that lets the page be seen before it is complete is caught, which is shown
//! with one: zeros first, contents afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use userfault_abi::{Api, Copy, Range, Register, Zeropage, request};
use userfault_conformance::place::{At, Place, Use};
use userfault_conformance::places::kernel::{Flavour, Kernel};
use userfault_conformance::places::process::Process;
use userfault_conformance::real::access;
use userfault_conformance::suite::skipped;
use userfault_engine::Protocol;

const PAGE: u64 = 4096;
const PATTERN: u8 = 0x77;
const WORD: u64 = u64::from_ne_bytes([PATTERN; 8]);

/// How a page is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Contents, then visible: COPY.
    Whole,
    /// Visible, then contents: what must be caught.
    LiftedFirst,
}

/// Ends the readers, also when the test fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many values other than the page's were seen in so many fills, or until one was.
fn bad_values(place: &mut dyn Place, way: Way, fills: u32) -> u64 {
    let fd = place.open(0x800).unwrap();
    let call = |place: &mut dyn Place, request, argument: &mut [u8]| {
        place.ioctl(fd, request, argument, At::Good).unwrap();
    };
    call(place, request::API, &mut Api { api: 0xAA, features: 0, ioctls: 0 }.encode());
    // Its own part of the address space: the tests run beside each other.
    static NEXT: AtomicU64 = AtomicU64::new(0x3A00_0000_0000);
    let window = NEXT.fetch_add(1 << 30, Ordering::Relaxed);
    let base = place.map(window, 1, Use::Registrable);
    let source = place.map(window + 16 * PAGE, 1, Use::Source);
    place.populate(source, &[PATTERN; 4096]);
    let range = Range { start: base, len: PAGE };
    call(place, request::REGISTER, &mut Register { range, mode: 1, ioctls: 0 }.encode());
    let stop = Arc::new(AtomicBool::new(false));
    let _stopped = Stop(Arc::clone(&stop));
    let bad = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..3_u64)
        .map(|reader| {
            let (stop, bad) = (Arc::clone(&stop), Arc::clone(&bad));
            std::thread::spawn(move || {
                let mut random = 0x2545_F491_4F6C_DD1D + reader;
                while !stop.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    for offset in [0, random >> 40 & 0xFF8, PAGE - 8] {
                        let seen = access::load(base + offset);
                        bad.fetch_add(u64::from(seen.value != WORD || seen.signal != 0), Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for _ in 0..fills {
        place.discard(base, 1);
        if way == Way::Whole {
            call(place, request::COPY, &mut Copy { dst: base, src: source, len: PAGE, mode: 0, copy: 0 }.encode());
        } else {
            call(place, request::ZEROPAGE, &mut Zeropage { range, mode: 0, zeropage: 0 }.encode());
            place.populate(base, &[PATTERN; 4096]);
            if bad.load(Ordering::Relaxed) > 0 {
                break;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    bad.load(Ordering::Relaxed)
}

// spec(process): H1
// spec(process): m/fill/wake, m/fault/recheck
#[test]
fn in_the_process_no_reader_ever_sees_half_a_page() {
    assert_eq!(bad_values(&mut Process::new(Protocol::Modern), Way::Whole, 5_000), 0);
    let caught = bad_values(&mut Process::new(Protocol::Modern), Way::LiftedFirst, 100_000);
    assert!(caught > 0, "a fill that lifts the protection first is not noticed");
}

// spec(kernel): m/fill/wake, m/fault/recheck
#[test]
fn on_the_kernel_no_reader_ever_sees_half_a_page() {
    for (way, fills) in [(Way::Whole, 5_000), (Way::LiftedFirst, 100_000)] {
        match Kernel::new(Flavour::UserModeOnly) {
            Ok(mut kernel) => {
                let bad = bad_values(&mut kernel, way, fills);
                assert_eq!(bad > 0, way == Way::LiftedFirst, "{bad} bad values");
            }
            Err(why) => skipped(&why),
        }
    }
}
