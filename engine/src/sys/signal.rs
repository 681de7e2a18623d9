//! Signals as values: they are blocked in every thread, and one thread waits for them, so that no
//! handler ever interrupts a turn.

use std::time::Duration;
use std::{io, mem, ptr};

/// A signal that the server acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGHUP.
    HangUp,
}

/// The signals that are waited for.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Blocks them in the calling thread and in all that it starts from now on. To be called
    /// before there are others.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn block() -> io::Result<Self> {
        let set = waited_for();
        // SAFETY: `set` is initialised; the old mask is not asked for.
        let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(Self(()))
    }

    /// The next one; `None` if none comes in time.
    pub fn wait(&self, limit: Duration) -> Option<Signal> {
        let set = waited_for();
        let limit = libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: `set` and `limit` are initialised; what came with the signal is not asked for.
        match unsafe { libc::sigtimedwait(&set, ptr::null_mut(), &limit) } {
            libc::SIGTERM => Some(Signal::Terminate),
            libc::SIGINT => Some(Signal::Interrupt),
            libc::SIGHUP => Some(Signal::HangUp),
            // Out of time, or interrupted by a signal that somebody handles.
            _ => None,
        }
    }
}

fn waited_for() -> libc::sigset_t {
    // SAFETY: `sigset_t` is a plain array of integers, for which zero is a valid value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is writable.
    unsafe { libc::sigemptyset(&mut set) };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: `set` is initialised and `signal` a valid number.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_to_a_thread_that_blocks_it_is_waited_for() {
        // In a thread of its own: the mask must not spread to other tests.
        let got = std::thread::spawn(|| {
            let signals = Signals::block().expect("these signals can be blocked");
            let none = signals.wait(Duration::ZERO);
            // SAFETY: the calling thread exists, and it blocks the signal.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGHUP) };
            (none, signals.wait(Duration::from_secs(10)))
        });
        assert_eq!(got.join().ok(), Some((None, Some(Signal::HangUp))));
    }
}
