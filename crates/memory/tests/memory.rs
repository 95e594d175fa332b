//! Mappings, loans and tables over real memory. Nothing here needs a fault to be answered.
//!
//! Invariant:
//!
//! 1. The one unsafe call writes to a live structure of this file; memory is touched through loans only.
#![expect(unsafe_code, reason = "asks the kernel how often this thread has faulted")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;

use userfault_memory::{
    AccessError, Advice, AdviseError, DiscardError, Fixed, LendError, MapError, Mapping, Protection, RangeError,
    Shared, Window, Zeroed, page_size,
};

fn mapping(pages: usize) -> Arc<Mapping> {
    Arc::new(Mapping::reserve(pages * page_size(), Protection::ReadWrite).unwrap())
}

#[test]
fn loans_and_tables_move_between_threads() {
    fn sent<T: Send>() {}
    fn seen<T: Sync>() {}
    sent::<(Arc<Mapping>, Window, Shared, Fixed<u8>, Zeroed<AtomicU64>)>();
    seen::<(Arc<Mapping>, Window, Shared, Fixed<u8>, Zeroed<AtomicU64>)>();
}

#[test]
fn a_length_is_rounded_up_to_whole_pages() {
    let page = page_size();
    for (len_bytes, pages) in [(1, 1), (page - 1, 1), (page, 1), (page + 1, 2)] {
        let mapping = Mapping::reserve(len_bytes, Protection::ReadWrite).unwrap();
        assert_eq!((mapping.pages(), mapping.len()), (pages, pages * page), "{len_bytes} bytes");
        assert_eq!(mapping.base() % page, 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri cannot unmap parts")]
fn an_alignment_is_kept() {
    for align_bytes in [1, page_size(), 2 << 20, 1 << 30] {
        let mapping = Arc::new(Mapping::reserve_aligned(page_size(), Protection::ReadWrite, align_bytes).unwrap());
        assert_eq!(mapping.base() % align_bytes, 0, "aligned to {align_bytes:#x}");
        mapping.window(mapping.range()).unwrap().as_mut_slice().fill(1);
    }
}

#[test]
fn what_cannot_be_mapped_is_refused_with_the_rule_it_breaks() {
    let refused = |len_bytes, align_bytes| Mapping::reserve_aligned(len_bytes, Protection::None, align_bytes).err();
    let page = page_size();
    let most = isize::MAX.cast_unsigned();
    assert_eq!(refused(0, page), Some(MapError::Empty));
    assert_eq!(refused(usize::MAX, page), Some(MapError::TooLarge { len_bytes: usize::MAX }));
    assert_eq!(refused(most, page), Some(MapError::TooLarge { len_bytes: most }), "rounding goes over");
    assert_eq!(refused(page, 3 * page), Some(MapError::Alignment { align_bytes: 3 * page }));
    assert_eq!(refused(page, 0), Some(MapError::Alignment { align_bytes: 0 }));
    if !cfg!(miri) {
        let last_legal = most - (page - 1);
        assert_eq!(refused(last_legal, page), Some(MapError::Os { call: "mmap", errno: libc::ENOMEM }));
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no /proc")]
fn memory_stays_mapped_until_its_last_loan_goes() {
    // Nobody else here maps a tebibyte without access, so its line in the table is ours.
    let mapping = Arc::new(Mapping::reserve(1 << 40, Protection::None).unwrap());
    let (start, end) = (mapping.base(), mapping.base() + mapping.len());
    let is_mapped = || {
        let table = std::fs::read_to_string("/proc/self/maps").unwrap();
        table.lines().filter(|line| line.contains("---p")).any(|line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let at = |text| usize::from_str_radix(text, 16).unwrap();
            at(from) <= start && end <= at(to)
        })
    };
    let window = mapping.window(0..page_size()).unwrap();
    let shared = mapping.shared(page_size()..2 * page_size()).unwrap();
    drop(mapping);
    assert!(is_mapped(), "a window and a shared loan live");
    drop(window);
    assert!(is_mapped(), "a shared loan lives");
    drop(shared);
    assert!(!is_mapped());
}

#[test]
fn a_loan_is_refused_where_the_range_is_wrong() {
    let mapping = mapping(4);
    let page = page_size();
    let cases = [
        ("empty", page..page, RangeError::Empty { start: page, end: page }),
        ("unaligned", 0..page + 1, RangeError::Unaligned { offset: page + 1 }),
        ("behind the end", 3 * page..5 * page, RangeError::OutOfBounds { end: 5 * page, len_bytes: 4 * page }),
    ];
    for (why, range, cause) in cases {
        assert_eq!(mapping.window(range.clone()).err(), Some(LendError::Range(cause)), "{why}");
        assert_eq!(mapping.shared(range.clone()).err(), Some(LendError::Range(cause)), "{why}");
        let advised = mapping.advise(range, Advice::DontDump);
        assert_eq!(advised, Err(AdviseError::Range(cause)), "{why}");
    }
}

#[test]
fn windows_are_exclusive_until_they_are_dropped() {
    let mapping = mapping(4);
    let page = page_size();
    let held = LendError::HeldByWindow { start: page, end: 3 * page };
    let window = mapping.window(page..3 * page).unwrap();
    assert_eq!(mapping.window(2 * page..4 * page).err(), Some(held));
    assert_eq!(mapping.shared(0..2 * page).err(), Some(held));
    assert!(mapping.window(0..page).is_ok(), "beside it is free");
    drop(window);
    assert!(mapping.window(0..4 * page).is_ok());
}

#[test]
fn a_shared_loan_keeps_windows_out_until_its_last_clone_goes() {
    let mapping = mapping(4);
    let page = page_size();
    let held = LendError::HeldByShared { start: 0, end: 2 * page };
    let shared = mapping.shared(0..2 * page).unwrap();
    let overlapping = mapping.shared(page..4 * page).unwrap();
    drop(overlapping);
    let clone = shared.clone();
    drop(shared);
    assert_eq!(mapping.window(page..2 * page).err(), Some(held));
    drop(clone);
    assert!(mapping.window(page..2 * page).is_ok());
}

#[test]
fn the_halves_of_a_split_window_are_windows_of_their_own() {
    let mapping = mapping(3);
    let page = page_size();
    let mut whole = mapping.window(0..3 * page).unwrap();
    whole.as_mut_slice()[page] = 7;
    let (low, mut high) = whole.split_at(page);
    assert_eq!((low.range(), high.range()), (0..page, page..3 * page));
    assert_eq!(high.address(), mapping.base() + page);
    assert_eq!(high.as_mut_slice()[0], 7);
    assert!(mapping.window(0..page).is_err(), "the low half is held");
    drop(low);
    assert!(mapping.window(0..page).is_ok(), "the low half is free");
    assert!(mapping.window(page..2 * page).is_err(), "the high half is held");

    for at in [0, 2 * page] {
        let (low, rest) = high.split_at(at);
        assert_eq!((low.len(), rest.len()), (at, 2 * page - at), "an empty half is legal");
        high = if at == 0 { rest } else { low };
        assert!(mapping.window(page..2 * page).is_err(), "and holds nothing");
    }
    drop(high);
    assert!(mapping.window(0..3 * page).is_ok());
}

#[test]
#[should_panic(expected = "is not a multiple of the page size")]
fn a_window_is_not_split_inside_a_page() {
    let _halves = mapping(2).window(0..2 * page_size()).unwrap().split_at(1);
}

#[test]
fn shared_memory_behaves_as_a_vector_at_every_offset_around_words_and_ends() {
    let mapping = mapping(2);
    let page = page_size();
    let shared = mapping.shared(page..2 * page).unwrap();
    let mut model = vec![0_u8; page];
    // Miri is slow: a few offsets cover a word's start, its middle and the end of the page.
    let step = if cfg!(miri) { 11 } else { 1 };
    let offsets = (0..17).chain(page - 26..=page).step_by(step);
    let mut stamp = 0_u8;
    for offset in offsets {
        for len in (0..26).filter(|len| offset + len <= page) {
            stamp = stamp.wrapping_add(1);
            let source: Vec<u8> = (0..len).map(|i| stamp.wrapping_add(u8::try_from(i).unwrap())).collect();
            shared.write(offset, &source).unwrap();
            model[offset..offset + len].copy_from_slice(&source);
            let mut seen = vec![0xAA; len];
            shared.read(offset, &mut seen).unwrap();
            assert_eq!(seen, source, "{len} bytes at {offset}");
            assert_eq!(shared.compare(offset, &source), None, "{len} bytes at {offset}");
            for at in 0..len {
                let mut other = source.clone();
                other[at] ^= 0x80;
                other[len - 1] ^= 1;
                assert_eq!(shared.compare(offset, &other), Some(at), "{len} bytes at {offset}");
            }
        }
        // One look at everything for each offset: bytes around a write are unchanged.
        assert_eq!(shared.compare(0, &model), None, "after the writes at {offset}");
    }
    drop(shared);
    assert!(mapping.window(0..page).unwrap().as_slice().iter().all(|byte| *byte == 0), "nor the page below");
}

#[test]
fn an_access_behind_the_end_of_shared_memory_copies_nothing() {
    let page = page_size();
    let shared = mapping(2).shared(0..page).unwrap();
    for (offset, len_bytes) in [(page, 1), (page - 1, 2), (page + 1, 0), (usize::MAX, 1), (0, page + 1)] {
        let refused = Err(AccessError::OutOfBounds { offset, len_bytes, limit_bytes: page });
        let mut bytes = vec![9; len_bytes];
        assert_eq!(shared.read(offset, &mut bytes), refused);
        assert!(bytes.iter().all(|byte| *byte == 9));
        assert_eq!(shared.write(offset, &bytes), refused);
    }
    assert_eq!(shared.compare(0, &vec![0; page]), None, "nothing was written");
    assert_eq!(shared.compare(page - 2, &[0; 3]), Some(2), "a byte behind the end differs");
    assert_eq!(shared.compare(page, &[]), None, "no byte does not");
    assert_eq!(shared.compare(page + 8, &[0]), Some(0));
}

#[test]
fn writers_of_neighbouring_bytes_do_not_undo_each_other() {
    let mapping = mapping(1);
    let shared = mapping.shared(mapping.range()).unwrap();
    let rounds: u8 = if cfg!(miri) { 5 } else { 250 };
    let start = Barrier::new(2);
    thread::scope(|scope| {
        // Two halves of one word, cut at an odd place.
        for (offset, len) in [(0, 3), (3, 5)] {
            let (shared, start) = (shared.clone(), &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..=rounds {
                    let mine = [round; 5];
                    shared.write(offset, &mine[..len]).unwrap();
                    assert_eq!(shared.compare(offset, &mine[..len]), None, "round {round} at {offset}");
                }
            });
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no page faults")]
fn a_write_to_an_absent_page_faults_once_and_as_a_write() {
    let mapping = mapping(64);
    mapping.advise(mapping.range(), Advice::NoHugePage).unwrap();
    let shared = mapping.shared(mapping.range()).unwrap();
    let page = page_size();
    // A read first would map the zero page, and the write fault once more. One byte at an odd offset.
    let touch = |index: usize| shared.write(index * page + 3, &[1]).unwrap();
    touch(0);
    let before = minor_faults();
    (1..64).for_each(touch);
    let faults = minor_faults() - before;
    assert!((63..80).contains(&faults), "{faults} faults for 63 pages");
}

fn minor_faults() -> i64 {
    // SAFETY: integers: zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the structure is live.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_minflt
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no madvise")]
fn a_discard_ends_the_contents_of_its_pages_and_of_no_others() {
    let mapping = mapping(5);
    let page = page_size();
    let mut window = mapping.window(page..5 * page).unwrap();
    window.as_mut_slice().fill(1);
    window.discard_plain(page..2 * page).unwrap();
    let firsts: Vec<u8> = window.as_slice().chunks(page).map(|bytes| bytes[0]).collect();
    assert_eq!(firsts, [1, 0, 1, 1]);
    drop(window);

    let shared = mapping.shared(page..5 * page).unwrap();
    shared.discard_plain(2 * page..4 * page).unwrap();
    assert_eq!(shared.compare(0, &vec![1; page]), None);
    assert_eq!(shared.compare(page, &vec![0; 3 * page]), None);
    let behind = RangeError::OutOfBounds { end: 5 * page, len_bytes: 4 * page };
    assert_eq!(shared.discard_plain(4 * page..5 * page), Err(DiscardError::Range(behind)), "ranges are its own");
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no madvise")]
fn advice_that_ends_contents_is_refused_exactly_where_a_window_shows_them() {
    let mapping = mapping(4);
    let page = page_size();
    let window = mapping.window(page..2 * page).unwrap();
    let shared = mapping.shared(2 * page..3 * page).unwrap();
    shared.write(0, &[1]).unwrap();
    let held = AdviseError::HeldByWindow { start: page, end: 2 * page };
    assert_eq!(mapping.advise(mapping.range(), Advice::DontNeed), Err(held));
    assert_eq!(mapping.advise(mapping.range(), Advice::DontDump), Ok(()), "contents stay");
    assert_eq!(shared.compare(0, &[1]), None, "nothing was discarded");
    assert_eq!(mapping.advise(2 * page..4 * page, Advice::DontNeed), Ok(()));
    assert_eq!(shared.compare(0, &[0]), None);
    drop(window);
    assert_eq!(mapping.advise(mapping.range(), Advice::DontNeed), Ok(()));
}

#[test]
fn a_fixed_vector_owns_what_was_pushed_and_gives_back_what_is_too_much() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    #[derive(Debug)]
    struct Counted(u32);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Relaxed);
        }
    }
    let mut table = Fixed::with_capacity(3).unwrap();
    assert_eq!((table.as_ref().len(), table.capacity()), (0, 3));
    (1..=3).for_each(|n| table.push(Counted(n)).unwrap());
    let refused = table.push(Counted(4)).unwrap_err();
    assert_eq!(refused.0, 4);
    table.as_mut()[1].0 = 20;
    assert_eq!(table.as_ref().iter().map(|counted| counted.0).collect::<Vec<_>>(), [1, 20, 3]);
    assert_eq!(DROPPED.load(Relaxed), 0);
    drop(refused);
    drop(table);
    assert_eq!(DROPPED.load(Relaxed), 4);
}

#[test]
fn tables_of_nothing_are_legal_and_too_large_ones_are_not() {
    #[repr(align(65536))]
    struct Wide;
    let mut units = Fixed::with_capacity(2).unwrap();
    assert_eq!([units.push(()), units.push(()), units.push(())], [Ok(()), Ok(()), Err(())]);
    assert_eq!(Fixed::with_capacity(0).unwrap().push(1), Err(1));
    assert!(Zeroed::<u64>::new(0).unwrap().is_empty());
    assert_eq!(Zeroed::<u64>::new(usize::MAX).err(), Some(MapError::TooLarge { len_bytes: usize::MAX }));
    assert_eq!(Fixed::<Wide>::with_capacity(1).err(), Some(MapError::Alignment { align_bytes: 65536 }));
}

#[test]
fn a_zeroed_table_starts_as_zeros_and_takes_memory_only_where_touched() {
    // 512 GiB of address space; more than this machine has.
    let len = if cfg!(miri) { 1 << 10 } else { 1 << 36 };
    let mut table = Zeroed::<AtomicU64>::new(len).unwrap();
    for index in [0, len / 2, len - 1] {
        assert_eq!(table[index].fetch_add(1, Relaxed), 0);
        assert_eq!(*table[index].get_mut(), 1);
    }
}
