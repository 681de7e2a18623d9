//! Processor time of the process and of the calling thread, as the kernel counts it.

use std::time::Duration;

/// Time spent in user and in system mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuTime {
    /// In the program's own code.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
}

/// Processor time of the whole process.
pub fn process() -> CpuTime {
    of(libc::RUSAGE_SELF)
}

/// Processor time of the processes that it has waited for.
pub fn children() -> CpuTime {
    of(libc::RUSAGE_CHILDREN)
}

/// Processor time of the calling thread.
pub fn thread() -> CpuTime {
    of(libc::RUSAGE_THREAD)
}

fn of(who: i32) -> CpuTime {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a `rusage` of our own, which the kernel fills.
    let failed = unsafe { libc::getrusage(who, usage.as_mut_ptr()) } != 0;
    if failed {
        return CpuTime::default();
    }
    // SAFETY: the call succeeded, and all zeros is a valid `rusage` anyway.
    let usage = unsafe { usage.assume_init() };
    let duration = |time: libc::timeval| {
        Duration::new(time.tv_sec.unsigned_abs(), (time.tv_usec.unsigned_abs() * 1000) as u32)
    };
    CpuTime { user: duration(usage.ru_utime), system: duration(usage.ru_stime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_time_covers_the_threads_time() {
        let mine = thread();
        let all = process();
        assert!(all.user + all.system >= mine.user + mine.system);
    }
}
