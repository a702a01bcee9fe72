//! Everything that touches PostgreSQL's internals. Every `unsafe` of the crate stands in this folder, each with
//! its reason; the domains above use it as plain Rust.

pub mod bell;
pub mod bulk;
pub mod cell;
pub mod datum;
pub mod error;
pub mod index;
pub mod jsonb;
pub mod kept;
pub mod keys;
pub mod lock;
pub mod numeric;
pub mod partition;
#[cfg(feature = "documents")]
pub mod program;
pub mod row_lock;
pub mod scan;
pub mod session;
pub mod settings;
pub mod spi;
pub mod transition;
pub mod worker;
pub mod write;
