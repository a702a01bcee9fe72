//! What clients must be able to rely on, told through ordinary connections: exact reads while others write, and
//! nothing lost or counted twice when the server is killed, dumped and restored, or replaced by its standby.
//!
//!     eval "$(tests/cluster start)" && tests/cargo test --test client -- --test-threads=1
//!
//! MF_ROUNDS=10 makes the random tests ten times as long, MF_SEED=... repeats one. Each test has a server of its own,
//! of the version that the environment names; that of a failed test keeps its data and log.

#[path = "client/billing/mod.rs"]
mod billing;
#[path = "client/crash.rs"]
mod crash;
#[path = "client/event.rs"]
mod event;
#[path = "client/ledger/mod.rs"]
mod ledger;
#[path = "client/oracle/mod.rs"]
mod oracle;
#[path = "client/outbox.rs"]
mod outbox;
#[path = "vectors/peers.rs"]
mod peers;
#[path = "client/restore.rs"]
mod restore;
#[path = "client/retention.rs"]
mod retention;
#[path = "client/rng.rs"]
mod rng;
#[path = "client/server.rs"]
mod server;
#[path = "client/slots.rs"]
mod slots;
#[path = "client/standby.rs"]
mod standby;
#[path = "client/traces.rs"]
mod traces;
#[path = "client/vectors/mod.rs"]
mod vectors;
