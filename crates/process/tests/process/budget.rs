//! How many mappings, how much memory, how many calls.

use std::thread;

use userfault_client::{Region as _, Shared as _, Uffd as _, Wait};
use userfault_process::{Region, Tuning, statistics, tune};

use crate::access::load;
use crate::alone::{alone_both_ways, tuning};
use crate::support::{CHUNK, PAGE, Random, contents, fill, map, mappings, open, page_of, status_kb, word};

/// Touches every page in random order and compares every byte; the most mappings seen on the way.
fn compare(region: &Region, random: &mut Random, samples: usize) -> usize {
    let shared = region.shared(0..region.pages()).unwrap();
    let mut most = 0;
    for (at, page) in random.order(region.pages()).into_iter().enumerate() {
        assert_eq!(shared_differs(&shared, page), None, "page {page}");
        if at % (region.pages() / samples) == 0 {
            most = most.max(mappings());
        }
    }
    most
}

fn shared_differs(shared: &userfault_process::Shared, page: usize) -> Option<usize> {
    shared.compare(page * PAGE, &contents(page, 1))
}

/// Fills `pages` pages one by one in random order; mappings before, the most of them, and what is allowed.
fn fill_in_random_order(pages: usize, tuning: Tuning) {
    tune(tuning).unwrap();
    let uffd = open();
    let region = map(&uffd, pages);
    let mut random = Random::new();
    let before = mappings();
    let samples = 64;
    let mut most = before;
    for (at, page) in random.order(pages).into_iter().enumerate() {
        fill(&region, page, 1);
        if at % (pages / samples) == 0 {
            most = most.max(mappings());
        }
    }
    let filled = mappings();
    let touched = compare(&region, &mut random, samples);
    let chunks = pages / CHUNK;
    let Statistics { mappings: counted, mapping_budget } = numbers();
    println!(
        "measured: {chunks} chunks, budget {mapping_budget}, without guards {}: mappings {before}, at most {most}, \
         filled {filled}, at most {touched} in the second pass, the host counts {counted}",
        tuning.without_guards
    );
    // Without guards the 64 pages lifted last are spared, each between two borders; with them two runs a
    // chunk are free, until the budget is reached.
    let allowed = before + mapping_budget + if tuning.without_guards { 3 * 64 } else { mapping_budget + 64 };
    assert!(most <= allowed && touched <= allowed, "{most} and {touched} of {allowed}");
    assert!(counted <= mapping_budget + 3 * 64, "{counted}");
}

struct Statistics {
    mappings: usize,
    mapping_budget: usize,
}

fn numbers() -> Statistics {
    let all = statistics().unwrap();
    Statistics { mappings: all.mappings, mapping_budget: all.mapping_budget }
}

const MIB_256: usize = 256 << 20 >> 12;
const GIB_2: usize = 2 << 30 >> 12;

fn with_budget(budget: usize, without_guards: bool) -> Tuning {
    Tuning { mapping_budget: Some(budget), without_guards, ..tuning() }
}

// spec: H4
#[test]
fn single_page_fills_in_random_order_stay_near_a_budget_of_16_mappings() {
    alone_both_ways(|| fill_in_random_order(MIB_256, with_budget(16, false)));
}

// spec: H4
#[test]
fn single_page_fills_in_random_order_stay_near_a_budget_of_1000_mappings() {
    alone_both_ways(|| fill_in_random_order(MIB_256, with_budget(1000, false)));
}

// spec: H4, H7
#[test]
fn without_guards_fills_and_later_touches_stay_near_a_budget_of_16_mappings() {
    alone_both_ways(|| fill_in_random_order(MIB_256 / 8, with_budget(16, true)));
}

// spec: H4, H7
#[test]
fn without_guards_fills_and_later_touches_stay_near_a_budget_of_1000_mappings() {
    alone_both_ways(|| fill_in_random_order(MIB_256 / 8, with_budget(1000, true)));
}

// spec: H4
#[test]
#[ignore = "half a minute"]
fn two_gibibytes_in_random_order_stay_near_a_budget_of_16_mappings() {
    alone_both_ways(|| fill_in_random_order(GIB_2, with_budget(16, false)));
}

// spec: H4
#[test]
#[ignore = "half a minute"]
fn two_gibibytes_in_random_order_stay_near_a_budget_of_1000_mappings() {
    alone_both_ways(|| fill_in_random_order(GIB_2, with_budget(1000, false)));
}

// spec: H4, H7
#[test]
#[ignore = "half a minute"]
fn two_gibibytes_in_random_order_without_guards_stay_near_a_budget_of_1000_mappings() {
    alone_both_ways(|| fill_in_random_order(GIB_2, with_budget(1000, true)));
}

// spec: H6
#[test]
fn registering_a_tebibyte_takes_as_many_mappings_and_page_tables_as_a_mebibyte() {
    alone_both_ways(|| {
        let uffd = open();
        // Whatever is made once is made now.
        drop(map(&uffd, 256));
        let cost = |pages: usize| {
            let (tables, lines, calls) = (status_kb("VmPTE"), mappings(), userfault_process::testing::host_calls());
            let region = map(&uffd, pages);
            let cost = (mappings() - lines, userfault_process::testing::host_calls() - calls);
            (cost, status_kb("VmPTE").saturating_sub(tables), region)
        };
        let (small, _, _small_region) = cost(256);
        let (large, tables_kb, region) = cost(1 << 28);
        println!("measured: 1 TiB: mappings and calls {large:?}, 1 MiB: {small:?}; tables {tables_kb} kB");
        assert_eq!(large.1, small.1);
        // The region, two tables of bits, one of chunks, and the table of states cut in three; neighbours
        // that allow the same merge.
        assert!(large.0 <= 6 && small.0 <= 6, "{large:?} {small:?}");
        assert!(tables_kb <= 64, "{tables_kb}");
        for page in [0, (1 << 28) - 1, 12_345_678] {
            fill(&region, page, 1);
            assert_eq!(load(region.base() + page * PAGE + 8), word(page, 1));
        }
    });
}

// spec: H8
#[test]
fn one_filled_page_takes_one_page_of_memory_though_huge_pages_are_wanted() {
    alone_both_ways(|| {
        let uffd = open();
        let region = map(&uffd, 16 * CHUNK);
        fill(&region, 0, 1);
        let before = status_kb("RssAnon");
        for chunk in 1..16 {
            fill(&region, chunk * CHUNK + 5, 1);
            assert_eq!(load(region.base() + (chunk * CHUNK + 5) * PAGE), word(chunk * CHUNK + 5, 1));
        }
        let grown = status_kb("RssAnon").saturating_sub(before);
        let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        println!("measured: 15 pages filled: {grown} kB with huge pages {}", enabled.trim());
        assert!(grown < 1024, "{grown} kB");
        // Where the machine gives huge pages only on request, the line above would hold by itself.
        assert!(flags_of_mapping(region.base()).split(' ').any(|flag| flag == "nh"), "MADV_NOHUGEPAGE is not set");
    });
}

/// The kernel's flags of the mapping with `address`.
fn flags_of_mapping(address: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_here = false;
    for line in smaps.lines() {
        let bounds = line.split(' ').next().and_then(|range| range.split_once('-'));
        let bounds = bounds.and_then(|(start, end)| {
            Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
        });
        if let Some(bounds) = bounds {
            is_here = bounds.contains(&address);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| is_here) {
            return flags.to_owned();
        }
    }
    String::new()
}

// spec: H4
#[test]
fn thousands_of_small_regions_live_at_once_and_their_places_start_anew() {
    alone_both_ways(|| {
        let uffd = open();
        let mut random = Random::new();
        for generation in 1..4 {
            let regions: Vec<_> = (0..2000).map(|_| map(&uffd, 1 + random.below(3))).collect();
            for at in random.order(regions.len()) {
                // A page that is there already would stop the fill: nothing is left of the last generation.
                fill(&regions[at], regions[at].pages() - 1, generation);
            }
            for region in &regions {
                let page = region.pages() - 1;
                assert_eq!(load(region.base() + page * PAGE + 16), word(page, generation));
            }
            println!("measured: {} mappings for 2000 regions", mappings());
        }
        assert_eq!(statistics().unwrap().mappings, 0);
    });
}

// spec: H4
#[test]
fn a_region_at_the_place_of_a_dropped_one_has_only_missing_pages() {
    alone_both_ways(|| {
        let uffd = open();
        let (mut again, mut last) = (0, 0);
        for generation in 1..50 {
            let region = map(&uffd, 2 * CHUNK);
            again += usize::from(region.base() == last);
            last = region.base();
            for page in (0..2 * CHUNK).step_by(3) {
                fill(&region, page, generation);
            }
            let (address, page) = (region.base() + 5 * PAGE, 5);
            thread::scope(|scope| {
                let reader = scope.spawn(move || load(address));
                let mut events = Vec::new();
                assert_eq!(uffd.read(Wait::Forever, &mut events).unwrap(), 1);
                assert_eq!(page_of(&region, &events[0]), page);
                fill(&region, page, generation);
                assert_eq!(reader.join().unwrap(), word(page, generation));
            });
        }
        println!("measured: the same place {again} times of 48");
        assert!(again > 0, "the test says nothing if places are never used again");
    });
}
