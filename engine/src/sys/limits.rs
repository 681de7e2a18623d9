//! What the machine must give before the cores can start: kernel, io_uring, locked memory, open
//! files. Each error is one line that says what to do. Entered at start, by one thread.

use std::io;

use io_uring::{IoUring, cqueue, squeue};

/// Oldest kernel whose io_uring has all that the ring uses.
pub const KERNEL_MIN: (u32, u32) = (6, 1);
/// Locked memory that an executor asks for.
pub const MEMLOCK_MIN_BYTES: u64 = 512 << 10;

/// Fails unless the kernel is at least [`KERNEL_MIN`].
///
/// # Errors
/// The line to show.
pub fn check_kernel() -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    check_release(text.trim())
}

fn check_release(text: &str) -> Result<(), String> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    // A kernel that hides its version is judged by its io_uring alone.
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Ok(());
    };
    if (major, minor) >= KERNEL_MIN {
        return Ok(());
    }
    let (want_major, want_minor) = KERNEL_MIN;
    Err(format!(
        "kernel {text} is too old: boot Linux {want_major}.{want_minor} or newer, whose io_uring \
         Cordis is built on"
    ))
}

/// Fails unless this process may use io_uring.
///
/// # Errors
/// The line to show.
pub fn check_io_uring() -> Result<(), String> {
    let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    let Err(error) = builder.build(8) else {
        return Ok(());
    };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.is_ok_and(|text| text.trim() != "0");
    Err(io_uring_advice(&error, disabled))
}

fn io_uring_advice(error: &io::Error, disabled_by_sysctl: bool) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled_by_sysctl => "io_uring is switched off on this host: run \
             `sysctl -w kernel.io_uring_disabled=0` as root"
            .to_owned(),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => format!(
            "io_uring is refused ({error}): in a container, allow io_uring_setup, io_uring_enter \
             and io_uring_register with the seccomp profile in tuning/"
        ),
        Some(libc::ENOMEM) => {
            format!("io_uring got no memory ({error}): raise `ulimit -l` or LimitMEMLOCK=")
        }
        Some(libc::EINVAL) => format!(
            "this kernel's io_uring lacks what Cordis uses ({error}): boot Linux 6.1 or newer"
        ),
        _ => format!("io_uring cannot be used: {error}"),
    }
}

/// The soft and the hard limit of a resource.
fn limit(resource: libc::__rlimit_resource_t) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and of the type that the call fills.
    if unsafe { libc::getrlimit(resource, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit of a resource to `want`, or as far as the hard limit allows. Returns the
/// soft limit after that.
fn raise(resource: libc::__rlimit_resource_t, want: u64) -> io::Result<u64> {
    let (soft, hard) = limit(resource)?;
    if soft >= want {
        return Ok(soft);
    }
    // A privileged process may raise its hard limit as well.
    for (rlim_cur, rlim_max) in [(want, hard.max(want)), (hard, hard)] {
        let new = libc::rlimit { rlim_cur, rlim_max };
        // SAFETY: `new` is a valid limit; the call only reads it.
        if unsafe { libc::setrlimit(resource, &new) } == 0 {
            return Ok(rlim_cur);
        }
    }
    Ok(soft)
}

/// Raises the limit of locked memory if it must be, and fails if it cannot be.
///
/// # Errors
/// The line to show.
pub fn ensure_memlock() -> Result<(), String> {
    let got = raise(libc::RLIMIT_MEMLOCK, MEMLOCK_MIN_BYTES)
        .map_err(|error| format!("cannot read the limit of locked memory: {error}"))?;
    if got >= MEMLOCK_MIN_BYTES {
        return Ok(());
    }
    Err(format!(
        "only {got} bytes of memory may be locked and {MEMLOCK_MIN_BYTES} are needed: set \
         `ulimit -l 512`, LimitMEMLOCK=512K or `docker run --ulimit memlock=524288`"
    ))
}

/// Raises the limit of open files to `want` if it can be, and in any case as far as it goes;
/// returns what it is then.
///
/// # Errors
/// The line to show.
pub fn raise_open_files(want: u64) -> Result<u64, String> {
    let raised = raise(libc::RLIMIT_NOFILE, want).and_then(|_| {
        let (_, hard) = limit(libc::RLIMIT_NOFILE)?;
        raise(libc::RLIMIT_NOFILE, hard)
    });
    raised.map_err(|error| format!("cannot read the limit of open files: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_below_the_minimum_is_refused() {
        for text in ["6.1.0-13-amd64", "6.18.44", "10.0", "weird"] {
            assert_eq!(check_release(text), Ok(()), "{text}");
        }
        for text in ["5.15.0-generic", "6.0.19", "4.4"] {
            let error = check_release(text).expect_err("too old");
            assert!(error.contains(text) && error.contains("6.1"), "{error}");
        }
    }

    #[test]
    fn advice_names_what_refused_io_uring() {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        assert!(io_uring_advice(&error, true).contains("sysctl"));
        assert!(io_uring_advice(&error, false).contains("seccomp"));
        let error = io::Error::from_raw_os_error(libc::ENOMEM);
        assert!(io_uring_advice(&error, false).contains("ulimit -l"));
    }

    #[test]
    fn limits_are_never_lowered() {
        let (soft, _) = limit(libc::RLIMIT_NOFILE).expect("every process has this limit");
        assert_eq!(raise(libc::RLIMIT_NOFILE, 1).ok(), Some(soft));
        assert!(raise_open_files(soft).is_ok_and(|got| got >= soft));
    }
}
