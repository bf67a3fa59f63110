//! The Pulsar binary protocol in front of a Leatworks broker, so that every Pulsar client in every language can use it.
//!
//! [`Server`] listens and serves one namespace; [`wire`] holds the protocol's bytes, for it and for clients.

mod auth;
mod envelope;
mod name;
mod server;
pub mod wire;

pub use auth::{KeyError, TokenKey};
pub use name::Namespace;
pub use server::{ServeError, Server, ServerOptions};
