//! What a store needs of a file system, and the real one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use super::StoreError;

/// Files by name.
pub trait Medium {
    /// The names of all files.
    ///
    /// # Errors
    /// Whatever the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A whole file.
    ///
    /// # Errors
    /// Whatever the system says.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Makes a file that is there whole, on disk, or not at all.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Appends to a file, on disk when it returns.
    ///
    /// # Errors
    /// Whatever the system says; then any part of the bytes may be in the file.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file, on disk when it returns.
    ///
    /// # Errors
    /// Whatever the system says.
    fn truncate(&mut self, name: &str, bytes: usize) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the system says.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A folder, held by this process alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The file that is being appended to.
    open: Option<(String, File)>,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Takes a folder, made if it does not exist.
    ///
    /// # Errors
    /// If it cannot be used, or another process has it.
    pub fn take(path: PathBuf) -> Result<Self, StoreError> {
        let failed =
            |what: &str, why| StoreError::Io { what: format!("{what} {}", path.display()), why };
        fs::create_dir_all(&path).map_err(|why| failed("cannot make", why))?;
        let lock_path = path.join("control.lock");
        // The lock is the system's, so that it goes with the process however that ends.
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|why| failed("cannot lock", why))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, open: None, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Held(lock_path.display().to_string())),
            Err(TryLockError::Error(why)) => Err(failed("cannot lock", why)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Medium for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.open = None;
        let temporary = self.path.join(format!("{name}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join(name))?;
        self.sync_names()
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = OpenOptions::new().append(true).open(self.path.join(name))?;
            self.open = Some((name.to_owned(), file));
        }
        let Some((_, file)) = &mut self.open else {
            return Err(ErrorKind::NotFound.into());
        };
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn truncate(&mut self, name: &str, bytes: usize) -> io::Result<()> {
        self.open = None;
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(bytes as u64)?;
        file.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.sync_names()
    }
}
