//! Several cores with their tapes, writers and files on shards that pass from one to the other, and what
//! is left of it when files are cut anywhere: a past that respects causes.

use std::collections::BTreeMap;

use crate::journal::frame;
use crate::journal::{Journal, LogicalClock};
use crate::persist::check::check;
use crate::persist::manifest::{Manifest, SetLine};
use crate::persist::merge::Merge;
use crate::persist::writer::tests::{Folder, Rig};
use crate::units::{CoreId, DbIndex, SlotId};

const CORES: usize = 3;
const SHARDS: usize = 4;

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % end
    }
}

/// One write: the versions of the shards that it has seen, and those that it has made.
type Seen = Vec<(usize, u64)>;

/// Cores that write to shards: each write names the version of every shard that it touches.
struct World {
    rigs: Vec<Rig>,
    clocks: Vec<LogicalClock>,
    journals: Vec<Journal>,
    versions: [u64; SHARDS],
    made: BTreeMap<u64, Seen>,
    count: u64,
}

impl World {
    fn new(folder: &Folder) -> Self {
        let rigs: Vec<Rig> =
            (0..CORES).map(|core| Rig::of_many(folder, core as u16, CORES as u16)).collect();
        let journals = (0..SHARDS).map(|_| {
            let mut journal = Journal::default();
            journal.set_log(1);
            journal
        });
        let journals = journals.collect();
        let mut clocks: Vec<LogicalClock> = (0..CORES).map(|_| LogicalClock::default()).collect();
        let mut rigs = rigs;
        for (clock, rig) in clocks.iter_mut().zip(&mut rigs) {
            std::mem::swap(&mut clock.tape, &mut rig.tape);
        }
        let versions = [0; SHARDS];
        Self { rigs, clocks, journals, versions, made: BTreeMap::new(), count: 0 }
    }

    /// A core writes to some shards at once.
    fn write(&mut self, core: usize, shards: &[usize]) {
        let clock = &mut self.clocks[core];
        shards.iter().for_each(|&shard| clock.see(&self.journals[shard]));
        clock.begin_unit();
        self.count += 1;
        let mut seen = Vec::new();
        for &shard in shards {
            self.versions[shard] += 1;
            seen.push((shard, self.versions[shard]));
            let words =
                [self.count.to_string(), shard.to_string(), self.versions[shard].to_string()];
            let words = words.each_ref().map(|word| word.as_bytes());
            let slot = SlotId::new(shard as u64);
            self.journals[shard].emit(clock, slot, DbIndex(0), words.into_iter());
        }
        clock.end_unit();
        self.made.insert(self.count, seen);
    }

    /// The turn of a core ends: its tape is written.
    fn end_turn(&mut self, core: usize) {
        let rig = &mut self.rigs[core];
        std::mem::swap(&mut self.clocks[core].tape, &mut rig.tape);
        rig.run();
        std::mem::swap(&mut self.clocks[core].tape, &mut rig.tape);
    }
}

fn manifest() -> Manifest {
    Manifest { sets: vec![SetLine { set: 1, core_count: CORES as u16, is_base: false }] }
}

/// Reads the log and checks that it is a past: no version of a shard is skipped, no write is half there.
fn past(folder: &Folder, made: &BTreeMap<u64, Seen>) -> usize {
    let mut merge = Merge::open(&folder.0, &manifest()).expect("its files are there");
    let (mut versions, mut ranges) = ([0u64; SHARDS], Vec::new());
    let mut found: BTreeMap<u64, usize> = BTreeMap::new();
    while let Some((unit, ..)) = merge.next_unit().expect("torn ends are no damage") {
        let mut rest = &unit.records[..];
        while let Some((_, len)) = frame::read(rest, &mut ranges) {
            let number = |at: usize| -> u64 {
                let range: &crate::commands::args::ArgRange = &ranges[at];
                let text = std::str::from_utf8(&rest[range.start as usize..range.end as usize]);
                text.ok().and_then(|text| text.parse().ok()).expect("a number")
            };
            if !ranges.is_empty() {
                let (write, shard, version) = (number(0), number(1) as usize, number(2));
                assert_eq!(version, versions[shard] + 1, "shard {shard} skips, or goes back");
                versions[shard] = version;
                *found.entry(write).or_default() += 1;
            }
            rest = &rest[len..];
        }
    }
    for (write, count) in &found {
        assert_eq!(*count, made[write].len(), "half of write {write}");
    }
    found.len()
}

#[test]
fn files_cut_anywhere_leave_a_past_that_respects_causes() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0xca05e);
    for seed in seed..seed + 2 {
        let folder = Folder::new("causes");
        let mut rng = Rng(seed);
        let mut world = World::new(&folder);
        for _ in 0..120 {
            let core = rng.below(CORES);
            let first = rng.below(SHARDS);
            let shards: Vec<usize> =
                (0..SHARDS).filter(|&shard| shard == first || rng.below(6) == 0).collect();
            world.write(core, &shards);
            if rng.below(3) == 0 {
                world.end_turn(core);
            }
        }
        (0..CORES).for_each(|core| world.end_turn(core));
        assert_eq!(past(&folder, &world.made), world.made.len(), "SEED={seed}");
        let report = check(&folder.0.dir).expect("it can be read");
        assert!(report.contains("The log is whole.\n"), "{report}");
        let paths: Vec<_> = (0..CORES as u16).map(|core| folder.0.file(1, CoreId(core))).collect();
        let whole: Vec<Vec<u8>> =
            paths.iter().map(|path| std::fs::read(path).expect("it was written")).collect();
        for _ in 0..40 {
            for (path, bytes) in paths.iter().zip(&whole) {
                let len =
                    if rng.below(3) == 0 { bytes.len() } else { 64 + rng.below(bytes.len() - 63) };
                std::fs::write(path, &bytes[..len]).expect("the folder is writable");
            }
            let count = past(&folder, &world.made);
            assert!(count <= world.made.len(), "SEED={seed}");
        }
        for core in 0..CORES {
            // One file ends at every place there is; the others are whole.
            for (path, bytes) in paths.iter().zip(&whole) {
                std::fs::write(path, bytes).expect("the folder is writable");
            }
            for len in (64..=whole[core].len()).step_by(29) {
                std::fs::write(&paths[core], &whole[core][..len]).expect("the folder is writable");
                past(&folder, &world.made);
            }
        }
    }
}

#[test]
fn log_with_bytes_changed_at_random_is_read_without_a_panic() {
    let folder = Folder::new("mutation");
    let mut rng = Rng(0xbad);
    let mut world = World::new(&folder);
    for _ in 0..40 {
        let (core, shard) = (rng.below(CORES), rng.below(SHARDS));
        world.write(core, &[shard]);
        world.end_turn(core);
    }
    let paths: Vec<_> = (0..CORES as u16).map(|core| folder.0.file(1, CoreId(core))).collect();
    let whole: Vec<Vec<u8>> =
        paths.iter().map(|path| std::fs::read(path).expect("it was written")).collect();
    for _ in 0..400 {
        let which = rng.below(CORES);
        let mut bytes = whole[which].clone();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.below(256) as u8;
        }
        std::fs::write(&paths[which], &bytes).expect("the folder is writable");
        if let Ok(mut merge) = Merge::open(&folder.0, &manifest()) {
            while let Ok(Some(_)) = merge.next_unit() {}
        }
        std::fs::write(&paths[which], &whole[which]).expect("the folder is writable");
    }
    assert_eq!(past(&folder, &world.made), world.made.len());
}
