//! Dashboard, migration scheduler, failure detector and admin protocol.
#![forbid(unsafe_code)]
