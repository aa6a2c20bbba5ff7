//! The memory that this process may use: that of the machine, or of its container if that is less.

use std::fs;
use std::path::Path;

use crate::config::MaxMemory;

/// Returns the limit in bytes; 0: no limit. A share of an unknown memory is no limit.
pub(super) fn resolve(limit: MaxMemory) -> u64 {
    match limit {
        MaxMemory::Bytes(bytes) => bytes,
        MaxMemory::Share(percent) => match available(Path::new("/")) {
            Some(memory) => memory / 100 * u64::from(percent),
            None => {
                tracing::warn!("the memory of the machine is unknown, so the embedded Redis has no limit of memory");
                0
            }
        },
    }
}

/// Reads the memory of the machine below `root`, and the limits of the control groups of this process.
fn available(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path.trim_start_matches('/'))).ok();
    let machine = read("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let mut limits: Vec<u64> = machine.into_iter().collect();
    for group in read("proc/self/cgroup").unwrap_or_default().lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the group's path may be that outside of it, so each group above is tried too.
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        let found = groups.filter_map(|group| read(&format!("{base}/{}/{file}", group.display())));
        limits.extend(found.filter_map(|text| text.trim().parse::<u64>().ok()));
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_limit_of_machine_and_control_groups_counts() {
        let root = std::env::temp_dir().join(format!("slotwheel-memory-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(available(&root), None);
        write("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 5 kB\n");
        assert_eq!(available(&root), Some(1_024_000));
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        write("sys/fs/cgroup/a/memory.max", "500000\n");
        assert_eq!(available(&root), Some(500_000));
        write("proc/self/cgroup", "5:cpu,memory:/c\n");
        write("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "400000\n");
        assert_eq!(available(&root), Some(400_000));
        fs::remove_dir_all(&root).unwrap();
    }
}
