//! What the processes of a cluster have in common before and beside their work: the directory that
//! belongs to one of them, patience for a port, secrets in arguments.
//!
//! Every error is one line that says what to do. Runs before there are cores, so it may wait and use
//! files; knows no session, no shard and no command.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a port in use is tried again.
const LISTEN_AGAIN_EVERY: Duration = Duration::from_millis(25);
/// How many times: two seconds in all.
const LISTEN_TRIES: u32 = 80;

/// The directory of a process' files, which no other of its kind may use at the same time.
#[derive(Debug)]
pub struct DirLock {
    /// Its absolute path.
    pub dir: PathBuf,
    /// Locked until it is closed, by whatever end of the process.
    _file: File,
}

impl DirLock {
    /// Takes a directory for `program`; `name` is the file in it that is locked.
    ///
    /// # Errors
    /// It is not there, cannot be written to, or another process has it.
    pub fn take(dir: &Path, program: &str, name: &str) -> Result<Self, String> {
        let shown = dir.display();
        let dir = match fs::canonicalize(dir) {
            Ok(found) if found.is_dir() => found,
            Ok(_) => return Err(format!("{shown} is not a directory: choose one with --dir")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!(
                    "directory {shown} does not exist: create it with `mkdir -p {shown}`, or \
                     choose another with --dir"
                ));
            }
            Err(error) => return Err(format!("directory {shown} cannot be used: {error}")),
        };
        let unwritable = |error: io::Error| {
            format!(
                "directory {} is not writable ({error}): change its owner, or choose another \
                 with --dir",
                dir.display()
            )
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(dir.join(name)).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(&dir, program, &mut file)),
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        write_pid(&mut file).map_err(unwritable)?;
        Ok(Self { dir, _file: file })
    }
}

/// The file says who holds it.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn in_use(dir: &Path, program: &str, file: &mut File) -> String {
    let mut pid = String::new();
    // Without a number the line is still right.
    let _ = file.take(20).read_to_string(&mut pid);
    let dir = dir.display();
    format!(
        "another {program} (process {}) uses directory {dir}: stop it, or give this one a \
         directory of its own with --dir",
        pid.trim()
    )
}

/// Opens what listens at `place`, and tries again for two seconds while it is in use: the kernel takes
/// the sockets of a process that was killed down some time after its end, because its ring holds them.
///
/// # Errors
/// What `listen` says, in the end.
pub fn listen_patiently<T>(
    place: &str,
    mut listen: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    for attempt in 0..LISTEN_TRIES {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if attempt == 0 {
                    tracing::warn!(place, "in use: waiting for whoever listened there to be gone");
                }
                // There is nothing to be woken by. (A park may end early, which costs a try.)
                std::thread::park_timeout(LISTEN_AGAIN_EVERY);
            }
            done => return done,
        }
    }
    listen()
}

/// Random bytes from the kernel.
///
/// # Errors
/// One line that says what is missing.
pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| format!("cannot read random bytes from /dev/urandom: {error}"))?;
    Ok(bytes)
}

/// Overwrites secrets that were given as these flags where process lists read them. Does nothing if the
/// kernel does not let a process write to its own arguments; the configuration file is the place
/// for secrets.
pub fn hide_secret_arguments(flags: &[String]) {
    let _ = try_hide(flags);
}

fn try_hide(flags: &[String]) -> Option<()> {
    let words = fs::read("/proc/self/cmdline").ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Field 48 is where the arguments begin; the first after the name in brackets is field 3.
    let fields = stat.rsplit_once(')')?.1;
    let start: u64 = fields.split_whitespace().nth(48 - 3)?.parse().ok()?;
    if start == 0 {
        return None;
    }
    let memory = OpenOptions::new().write(true).open("/proc/self/mem").ok()?;
    for (at, len) in secret_ranges(&words, flags) {
        memory.write_all_at(&vec![b'*'; len], start + at as u64).ok()?;
    }
    Some(())
}

/// Where the values of secret flags are in arguments that each end in a zero byte.
fn secret_ranges(words: &[u8], flags: &[String]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut at, mut follows) = (0, false);
    for word in words.split(|byte| *byte == 0) {
        if follows {
            found.push((at, word.len()));
        }
        follows = flags.iter().any(|flag| word == flag.as_bytes());
        for flag in flags {
            let value = word.strip_prefix(flag.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            if let Some(value) = value {
                found.push((at + flag.len() + 1, value.len()));
            }
        }
        at += word.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_all_forms() {
        let flags = ["--requirepass", "--session-auth", "--admin_auth"].map(str::to_owned);
        let find = |words: &[u8]| {
            let found = secret_ranges(words, &flags);
            found.into_iter().map(|(at, len)| words[at..at + len].to_vec()).collect::<Vec<_>>()
        };
        let words = b"x\0--requirepass\0abc\0--port\x001\0--requirepass=de\0--requirepassx\0y\0";
        assert_eq!(find(words), [&b"abc"[..], b"de"]);
        let words = b"x\0--session-auth\0abc\0--dir\0y\0--admin_auth=de\0--admin-authx\0y\0";
        assert_eq!(find(words), [&b"abc"[..], b"de"]);
        assert!(find(b"x\0--requirepass").is_empty());
    }

    #[test]
    fn dir_lock_is_for_one() {
        let name = format!("cordis-process-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let take = || DirLock::take(&dir, "cordis-thing", "thing.lock");
        let error = take().expect_err("it is not there");
        assert!(error.contains("mkdir -p"));
        fs::create_dir(&dir).expect("the directory is writable");
        let lock = take().expect("nobody uses it");
        let error = take().expect_err("it is taken");
        let holder = format!("another cordis-thing (process {})", std::process::id());
        assert!(error.contains(&holder), "{error}");
        drop(lock);
        drop(take().expect("nobody uses it any more"));
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn port_that_is_let_go_of_is_had_and_other_errors_are_told_at_once() {
        let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
        let mut tries = 0;
        let got = listen_patiently("here", || {
            tries += 1;
            if tries < 3 { Err(in_use()) } else { Ok(tries) }
        });
        assert_eq!(got.expect("it is free in the end"), 3);
        let mut tries = 0;
        let got = listen_patiently("here", || {
            tries += 1;
            Err::<(), _>(io::ErrorKind::PermissionDenied.into())
        });
        assert!(got.is_err() && tries == 1);
        let mut tries = 0;
        let got = listen_patiently("here", || {
            tries += 1;
            Err::<(), _>(in_use())
        });
        assert_eq!(got.expect_err("it stays in use").kind(), io::ErrorKind::AddrInUse);
        assert_eq!(tries, LISTEN_TRIES + 1);
    }
}
