//! Slots: which slot a key belongs to and which core owns a slot. Knows no storage and no session.

pub mod hash;
pub mod map;
pub mod owner;
pub mod state;
