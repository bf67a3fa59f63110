//! The server by raw frames, so that what is tested is what is on the wire.

mod admin;
mod auth;
mod consumers;
mod frames;
mod hostile;
mod producers;
mod protocol;
mod support;
