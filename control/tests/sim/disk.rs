//! A disk under the real file store, that survives control and may tear its last write.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use cordis_control::store::medium::Medium;

/// A disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    /// The next write fails after so many bytes.
    pub(crate) tear: Rc<RefCell<Option<usize>>>,
}

impl Disk {
    fn torn(&self, bytes: usize) -> Option<usize> {
        self.tear.borrow_mut().take().map(|at| at % (bytes + 1))
    }
}

impl Medium for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.borrow().keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.files.borrow().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if let Some(count) = self.torn(bytes.len()) {
            self.files.borrow_mut().insert(format!("{name}.tmp"), bytes[..count].to_vec());
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files.borrow_mut().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let torn = self.torn(bytes.len());
        let mut files = self.files.borrow_mut();
        let file = files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.extend_from_slice(&bytes[..torn.unwrap_or(bytes.len())]);
        if torn.is_some() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, name: &str, bytes: usize) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        files.get_mut(name).ok_or(io::ErrorKind::NotFound)?.truncate(bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.borrow_mut().remove(name);
        Ok(())
    }
}
