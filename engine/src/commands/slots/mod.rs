//! The slots family: Codis' commands. Looking at slots is `inspect`; moving them in the original's
//! dialect is the rest: `restore` and `receive` as the target, `wrapper` beside a move, `moves` and
//! `dump` as the source. What a source sends and how it waits is `migrate::dialect`.

pub mod dump;
pub mod inspect;
pub mod moves;
pub mod receive;
pub mod restore;
pub mod wrapper;

pub use inspect::SPECS;
