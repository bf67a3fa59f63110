//! Apache Pulsar from both sides: its binary protocol in front of a Leatworks broker, so that every Pulsar client in every language can use
//! it, and the `Broker` contract on a real Pulsar.
//!
//! [`Server`] listens and serves one namespace; [`PulsarBroker`] is a client; [`wire`] holds the protocol's bytes, for it and for clients.

mod auth;
mod client;
mod envelope;
mod name;
mod server;
pub mod wire;

pub use auth::{KeyError, TokenKey};
pub use client::{PulsarBroker, PulsarError, PulsarOptions, Secret};
pub use name::Namespace;
pub use server::{ServeError, Server, ServerOptions};
