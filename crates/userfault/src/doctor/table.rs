//! What is tried: the operations, and the features with the operation that shows each.

use userfault_client::Features;

use super::reason::Stop;
use super::{Attempt, adopted, faults, kernel, pages, trial};

/// Something to do, and the function that does it and looks at the result.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) run: fn(&Attempt<'_>) -> Result<(), Stop>,
}

const fn operation(name: &'static str, title: &'static str, run: fn(&Attempt<'_>) -> Result<(), Stop>) -> Operation {
    Operation { name, title, run }
}

/// The first is the one without which there is nothing.
pub(super) const OPERATIONS: [Operation; 23] = [
    operation("missing", "missing faults, COPY", pages::missing),
    operation("zeropage", "ZEROPAGE", pages::zeropage),
    operation("writeprotect", "write-protect faults", faults::writeprotect),
    operation("copy-protected", "COPY of a protected page", faults::copy_protected),
    operation("poison", "POISON", trial::poison),
    operation("discard", "discard, and missing again", pages::discard),
    operation("unregister", "unregister part of a region", pages::unregister),
    operation("thread-id", "the faulting thread's id", faults::thread_id),
    operation("exact-address", "the exact address", faults::exact_address),
    operation("sigbus", "SIGBUS instead of a message", trial::sigbus),
    operation("inline", "answers by the faulting thread", trial::inline),
    operation("adopt", "adoption of memory in place", adopted::adopt),
    operation("wp-unpopulated", "protection of missing pages", faults::wp_unpopulated),
    operation("poll", "poll and epoll", faults::poll),
    operation("system-call", "system calls on missing pages", pages::system_call),
    operation("move", "MOVE", kernel::move_pages),
    operation("missing-shared", "missing faults, shared memory", kernel::missing_shared),
    operation("minor", "minor faults, CONTINUE", kernel::minor),
    operation("wp-shared", "protection of shared memory", kernel::wp_shared),
    operation("wp-async", "asynchronous write protection", kernel::wp_async),
    operation("event-fork", "event FORK", trial::event_fork),
    operation("event-layout", "events REMAP, REMOVE, UNMAP", kernel::event_layout),
    operation("original", "the protocol of 2015", pages::original),
];

/// Name, bit, and the operation that needs it; huge pages are not tried.
pub(super) const FEATURES: [(&str, Features, Option<&str>); 17] = [
    ("PAGEFAULT_FLAG_WP", Features::PAGEFAULT_FLAG_WP, Some("writeprotect")),
    ("EVENT_FORK", Features::EVENT_FORK, Some("event-fork")),
    ("EVENT_REMAP", Features::EVENT_REMAP, Some("event-layout")),
    ("EVENT_REMOVE", Features::EVENT_REMOVE, Some("event-layout")),
    ("MISSING_HUGETLBFS", Features::MISSING_HUGETLBFS, None),
    ("MISSING_SHMEM", Features::MISSING_SHMEM, Some("missing-shared")),
    ("EVENT_UNMAP", Features::EVENT_UNMAP, Some("event-layout")),
    ("SIGBUS", Features::SIGBUS, Some("sigbus")),
    ("THREAD_ID", Features::THREAD_ID, Some("thread-id")),
    ("MINOR_HUGETLBFS", Features::MINOR_HUGETLBFS, None),
    ("MINOR_SHMEM", Features::MINOR_SHMEM, Some("minor")),
    ("EXACT_ADDRESS", Features::EXACT_ADDRESS, Some("exact-address")),
    ("WP_HUGETLBFS_SHMEM", Features::WP_HUGETLBFS_SHMEM, Some("wp-shared")),
    ("WP_UNPOPULATED", Features::WP_UNPOPULATED, Some("wp-unpopulated")),
    ("POISON", Features::POISON, Some("poison")),
    ("WP_ASYNC", Features::WP_ASYNC, Some("wp-async")),
    ("MOVE", Features::MOVE, Some("move")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_is_there_by_its_name_and_each_operation_it_names_exists() {
        let mut all = Features::NONE;
        for (name, feature, shown_by) in FEATURES {
            assert_eq!(feature.to_string(), name);
            assert!(shown_by.is_none_or(|shown_by| OPERATIONS.iter().any(|operation| operation.name == shown_by)));
            all |= feature;
        }
        assert_eq!(all, Features::from_bits(Features::MOVE.bits() * 2 - 1), "none is left out");
    }
}
