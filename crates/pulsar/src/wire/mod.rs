//! The protocol's bytes: frames, commands, and how an entry's payload is packed. Pure functions; nothing here awaits or panics.

pub mod compress;
pub mod entry;
pub mod frame;
pub mod proto;
