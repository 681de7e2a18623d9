//! Routing of client sessions to backends: slot map, links, split and merge.
#![forbid(unsafe_code)]
