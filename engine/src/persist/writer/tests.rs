//! The writer on a disk that the test is: what is under way, what fails, what is found afterwards.

use super::*;
use crate::journal::tape::Tape;
use crate::persist::LogError;
use crate::persist::files::{FileHeader, Place};
use crate::persist::manifest::{Manifest, SetLine};
use crate::persist::read::{End, Reader};
use crate::units::{CoreId, DbIndex, SlotId};

/// A folder that is removed in the end.
pub(crate) struct Folder(pub(crate) Place);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cordis-log-{name}-{}", std::process::id()));
        // One that an earlier run has left.
        let _ = std::fs::remove_dir_all(&dir);
        let place = Place { dir, name: "a.aof".into() };
        place.make_dir().expect("the folder for temporary files is writable");
        Self(place)
    }

    pub(crate) fn file(&self, set: u32, core: u16, core_count: u16) -> Arc<LogFile> {
        let header = FileHeader {
            set,
            core: CoreId(core),
            core_count,
            number: u64::from(set) * 1000 + u64::from(core),
            made_at: Ms(1),
        };
        Arc::new(LogFile::create(&self.0, header).expect("the folder is writable"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.dir);
    }
}

/// A writer with a tape, and a disk that does what the test says.
pub(crate) struct Rig {
    pub(crate) tape: Tape,
    pub(crate) writer: Writer,
    pub(crate) policy: Policy,
    pub(crate) now: Ms,
    pub(crate) clock: u64,
    under_way: VecDeque<Op>,
    /// Bytes that the file may have: a full disk.
    pub(crate) room: u64,
    flush_errno: i32,
}

impl Rig {
    pub(crate) fn new(folder: &Folder, core: u16, policy: Policy) -> Self {
        Self::with(folder, core, 1, policy)
    }

    /// One of several cores.
    pub(crate) fn of_many(folder: &Folder, core: u16, core_count: u16) -> Self {
        let rig = Self::with(folder, core, core_count, Policy::EverySecond);
        let line = SetLine { set: 1, core_count, is_base: false };
        Manifest { sets: vec![line] }.write(&folder.0).expect("the folder is writable");
        rig
    }

    fn with(folder: &Folder, core: u16, core_count: u16, policy: Policy) -> Self {
        let mut rig = Self {
            tape: Tape::of(CoreId(core)),
            writer: Writer::default(),
            policy,
            now: Ms(1_000_000),
            clock: 0,
            under_way: VecDeque::new(),
            room: u64::MAX,
            flush_errno: 0,
        };
        rig.tape.switch(1);
        rig.begin(folder, core, core_count);
        // What every file begins with.
        rig.run();
        rig
    }

    fn begin(&mut self, folder: &Folder, core: u16, core_count: u16) {
        let op = self.writer.step(self.now, self.policy, true, &mut self.tape, |_| None);
        assert!(op.is_none());
        let file = folder.file(1, core, core_count);
        let op = self.writer.step(self.now, self.policy, true, &mut self.tape, |_| Some(file));
        self.under_way.extend(op);
    }

    pub(crate) fn add(&mut self, words: &[&[u8]]) {
        self.clock += 1;
        self.tape.record(self.clock, SlotId::new(1), DbIndex(0), words.iter().copied());
    }

    pub(crate) fn submit(&mut self) {
        let (now, policy) = (self.now, self.policy);
        while let Some(op) = self.writer.step(now, policy, true, &mut self.tape, |_| None) {
            self.under_way.push_back(op);
        }
    }

    /// Carries out what is under way.
    pub(crate) fn complete(&mut self) {
        while let Some(op) = self.under_way.pop_front() {
            match op {
                Op::Write { id, file, at, bytes, flush } => {
                    let room = self.room.saturating_sub(at).min(bytes.len() as u64) as usize;
                    use std::os::unix::fs::FileExt;
                    file.file.write_all_at(&bytes[..room], at).expect("the folder is writable");
                    let is_whole = room == bytes.len();
                    let result = if room == 0 { -libc::ENOSPC } else { room as i32 };
                    self.writer.wrote(id, result, bytes, &mut self.tape, self.now);
                    if flush {
                        let result = if is_whole { -self.flush_errno } else { -CANCELLED };
                        self.writer.flushed(id, result, &mut self.tape);
                    }
                }
                Op::Flush { id, .. } => {
                    self.writer.flushed(id, -self.flush_errno, &mut self.tape);
                }
            }
        }
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..4 {
            self.submit();
            self.complete();
        }
    }
}

/// Number of records of core 0's file of set 1, and how it ends.
pub(crate) fn count(folder: &Folder) -> Result<(usize, End), LogError> {
    let mut reader = Reader::open(&folder.0, 1, CoreId(0))?;
    let (mut count, mut ranges) = (0, Vec::new());
    loop {
        match reader.next_unit()? {
            Err(end) => return Ok((count, end)),
            Ok(unit) => {
                let mut rest = &unit.records[..];
                while let Some((record, len)) = frame::read(rest, &mut ranges) {
                    count += usize::from(record.kind == frame::Kind::Call);
                    rest = &rest[len..];
                }
            }
        }
    }
}

#[test]
fn always_is_durable_when_the_flush_of_each_write_before_is_back() {
    let folder = Folder::new("always");
    let mut rig = Rig::new(&folder, 0, Policy::Always);
    rig.run();
    rig.add(&[b"SET", b"a", b"1"]);
    rig.submit();
    rig.add(&[b"SET", b"b", b"1"]);
    rig.submit();
    rig.add(&[b"SET", b"c", b"1"]);
    rig.submit();
    assert_eq!((rig.under_way.len(), rig.writer.durable()), (2, 0));
    // The second comes back first.
    rig.under_way.swap(0, 1);
    let Some(first) = rig.under_way.pop_back() else { panic!("two are under way") };
    rig.complete();
    assert_eq!(rig.writer.durable(), 0);
    rig.under_way.push_back(first);
    rig.complete();
    assert_eq!(rig.writer.durable(), 2);
    rig.run();
    assert_eq!((rig.writer.durable(), rig.writer.is_idle()), (3, true));
    assert_eq!(count(&folder).expect("it is right"), (3, End::Whole));
}

#[test]
fn everysec_flushes_each_second_and_says_when_that_is_late() {
    let folder = Folder::new("everysec");
    let mut rig = Rig::new(&folder, 0, Policy::EverySecond);
    rig.add(&[b"SET", b"a", b"1"]);
    rig.run();
    assert_eq!(rig.writer.durable(), 0);
    let at = rig.writer.next_at().expect("there is something to flush");
    assert_eq!(at, Ms(rig.now.0 + 1000));
    rig.now = at;
    rig.submit();
    rig.add(&[b"SET", b"b", b"1"]);
    rig.now.0 += 1999;
    rig.submit();
    assert!(!rig.writer.is_late());
    rig.now.0 += 1;
    rig.submit();
    assert!(rig.writer.is_late() && rig.writer.late_count() == 1);
    rig.complete();
    assert!(!rig.writer.is_late());
    assert_eq!(rig.writer.durable(), 1);
    rig.now.0 += 1000;
    rig.run();
    assert_eq!((rig.writer.durable(), rig.writer.late_count()), (2, 1));
}

#[test]
fn full_disk_is_tried_again_and_leaves_no_gap() {
    for policy in [Policy::Always, Policy::EverySecond] {
        let folder = Folder::new("full");
        let mut rig = Rig::new(&folder, 0, policy);
        rig.add(&[b"SET", b"a", b"1"]);
        rig.run();
        // The next one is cut in two.
        rig.room = rig.writer.len() + 30;
        for n in 0..5 {
            rig.add(&[b"SET", format!("k{n}").as_bytes(), b"1"]);
            rig.submit();
        }
        rig.complete();
        assert_eq!(rig.writer.health(), Health::Failing(libc::ENOSPC));
        assert!(rig.writer.is_late());
        for _ in 0..3 {
            rig.now.0 += 100;
            rig.run();
            assert_eq!(rig.writer.health(), Health::Failing(libc::ENOSPC));
        }
        rig.room = u64::MAX;
        rig.now.0 += 100;
        rig.run();
        assert_eq!(rig.writer.health(), Health::Good);
        rig.add(&[b"SET", b"z", b"1"]);
        rig.run();
        rig.now.0 += 1000;
        rig.run();
        assert_eq!(rig.writer.durable(), 7);
        assert_eq!(count(&folder).expect("it is right"), (7, End::Whole), "{policy:?}");
    }
}

#[test]
fn failed_flush_is_final() {
    for policy in [Policy::Always, Policy::EverySecond] {
        let folder = Folder::new("flush");
        let mut rig = Rig::new(&folder, 0, policy);
        rig.run();
        rig.flush_errno = libc::EIO;
        rig.add(&[b"SET", b"a", b"1"]);
        rig.run();
        rig.now.0 += 1000;
        rig.run();
        assert_eq!(rig.writer.health(), Health::Dead(libc::EIO));
        rig.flush_errno = 0;
        rig.add(&[b"SET", b"b", b"1"]);
        rig.now.0 += 10_000;
        rig.run();
        assert_eq!((rig.writer.health(), rig.writer.durable()), (Health::Dead(libc::EIO), 0));
        assert!(rig.tape.is_empty(), "memory does not grow");
    }
}

#[test]
fn file_cut_off_anywhere_is_torn_and_loses_nothing_before() {
    let folder = Folder::new("torn");
    let mut rig = Rig::new(&folder, 0, Policy::EverySecond);
    let mut ends = vec![HEADER_BYTES, rig.writer.len()];
    for n in 0..6 {
        rig.add(&[b"SET", format!("k{n}").as_bytes(), b"value"]);
        rig.run();
        ends.push(rig.writer.len());
    }
    let path = folder.0.file(1, CoreId(0));
    let whole = std::fs::read(&path).expect("it was written");
    for len in HEADER_BYTES..=whole.len() as u64 {
        std::fs::write(&path, &whole[..len as usize]).expect("the folder is writable");
        let want = ends[1..].iter().filter(|&&end| end <= len).count().saturating_sub(1);
        let (got, end) = count(&folder).expect("a torn end is no damage");
        assert_eq!((got, end == End::Whole), (want, ends.contains(&len)), "{len} bytes");
        // The rest is zeros, as of blocks that never reached the disk.
        let mut zeros = whole[..len as usize].to_vec();
        zeros.resize(whole.len() + 100, 0);
        std::fs::write(&path, &zeros).expect("the folder is writable");
        let (got, _) = count(&folder).expect("a torn end is no damage");
        assert!(got == want || got == want + 1, "{len} bytes and zeros: {got}");
    }
}

#[test]
fn damage_before_what_was_flushed_is_refused_and_behind_it_is_a_torn_end() {
    let folder = Folder::new("damage");
    let mut rig = Rig::new(&folder, 0, Policy::EverySecond);
    let start = rig.writer.len() as usize;
    for n in 0..8 {
        rig.add(&[b"SET", format!("k{n}").as_bytes(), b"value"]);
        rig.run();
        if n == 3 {
            rig.now.0 += 1000;
            rig.run();
        }
    }
    let path = folder.0.file(1, CoreId(0));
    let whole = std::fs::read(&path).expect("it was written");
    let frame_len = (whole.len() - start) / 8;
    for at in start..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x40;
        std::fs::write(&path, &bad).expect("the folder is writable");
        let index = (at - start) / frame_len;
        match count(&folder) {
            Err(LogError::Damaged { offset, .. }) => {
                assert!(index < 4, "byte {at}");
                assert_eq!(offset, (start + index * frame_len) as u64);
            }
            Ok((got, End::Torn(_))) => assert!(index >= 4 && got == index, "byte {at}: {got}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}
