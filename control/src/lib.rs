//! Control: what decides about groups, servers, proxies and slots, and tells them so. See
//! `control/README.md` for the map.
#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod clock;
pub mod machine;
pub mod model;
pub mod peers;
pub mod ranges;
pub mod run;
pub mod settings;
pub mod start;
pub mod store;
pub mod up;
