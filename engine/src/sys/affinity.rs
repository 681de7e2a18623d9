//! Which CPUs this process may run on. Entered at start, by one thread.

use std::io;

/// CPUs in the affinity mask of the calling thread, in ascending order.
///
/// # Errors
/// What the kernel says.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is a plain array of integers, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is writable memory of `size` bytes; 0 names the calling thread.
    if unsafe { libc::sched_getaffinity(0, size, &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = libc::CPU_SETSIZE as usize;
    // SAFETY: `cpu` is below the number of bits of the set.
    Ok((0..limit).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// What the kernel says: there is no such CPU, or this process may not use it.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: `cpu_set_t` is a plain array of integers, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `cpu` is below the number of bits of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is readable memory of the size given; 0 names the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// CPUs that are switched on, as the kernel lists them (`0-3,8`); `None` if it does not say.
pub fn online_cpus() -> Option<Vec<usize>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// CPUs' worth of time that a container's quota allows, rounded up; `None` if it has no quota.
pub fn quota_cpu_count() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    parse_quota(&text)
}

/// `"200000 100000\n"` is two CPUs, `"max 100000\n"` no quota.
fn parse_quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_cpus_are_online() {
        let allowed = allowed_cpus().expect("the kernel knows the mask of a thread");
        assert!(!allowed.is_empty());
        if let Some(online) = online_cpus() {
            assert!(allowed.iter().all(|cpu| online.contains(cpu)));
        }
    }

    #[test]
    fn quota_is_rounded_up() {
        assert_eq!(parse_quota("200000 100000\n"), Some(2));
        assert_eq!(parse_quota("150000 100000\n"), Some(2));
        assert_eq!(parse_quota("1000 100000\n"), Some(1));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("1 0"), None);
    }
}
