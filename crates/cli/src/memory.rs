//! How much memory is free, and how much this process has had.
//!
//! Kernel counterpart: `/proc/meminfo`, `/proc/self/status`, the memory controllers of both cgroup versions.

use std::fs;
use std::path::{Path, PathBuf};

/// The most memory this process has had resident, in bytes: `VmHWM`, which the kernel keeps.
pub(crate) fn peak_bytes() -> Option<u64> {
    field_of(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// What can still be had: of the machine, or of a control group that leaves less. In bytes.
pub(crate) fn free_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field_of(&text, "MemAvailable:"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.into_iter().chain(groups.lines().filter_map(left_in_group)).min()
}

/// `name: 123 kB` as bytes.
fn field_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Names of the files of one version of the controller.
struct Names {
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` with what the group can give up at once.
    cache: &'static str,
}

const VERSION_1: Names = Names {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file",
};

const VERSION_2: Names =
    Names { root: "/sys/fs/cgroup", limit: "memory.max", used: "memory.current", cache: "inactive_file" };

/// What the group of a line of `/proc/self/cgroup`, or a group around it, leaves.
fn left_in_group(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let names = match controllers {
        "" => VERSION_2,
        list if list.split(',').any(|controller| controller == "memory") => VERSION_1,
        _ => return None,
    };
    let group = PathBuf::from(format!("{}{path}", names.root));
    // In a container the path may be one of the host's; then the walk meets the root, which is the container's.
    group.ancestors().take_while(|folder| folder.starts_with(names.root)).filter_map(|group| left(group, &names)).min()
}

fn left(group: &Path, names: &Names) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = number(names.limit)?;
    let used = number(names.used)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| line.strip_prefix(names.cache)?.trim().parse().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::{field_of, free_bytes, peak_bytes};

    #[test]
    fn fields_are_read_in_kibibytes() {
        let text = "MemTotal:  10 kB\nMemAvailable:       3 kB\n";
        assert_eq!(field_of(text, "MemAvailable:"), Some(3072));
        assert_eq!(field_of(text, "MemFree:"), None);
    }

    #[test]
    fn this_machine_tells() {
        assert!(free_bytes().is_some_and(|bytes| bytes > 0));
        assert!(peak_bytes().is_some_and(|bytes| bytes > 0));
    }
}
