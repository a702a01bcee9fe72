//! The pure core: no PostgreSQL in here. What events are, how they are measured, what states are and how they merge.

pub mod calendar;
pub mod cover;
pub mod currency;
pub mod decimal;
pub mod delta;
pub mod entitlement;
pub mod event;
pub mod filter;
pub mod invoice;
pub mod key;
pub mod ledger;
pub mod meter;
pub mod pricing;
pub mod properties;
pub mod proration;
pub mod ranges;
pub mod split;
pub mod state;
pub mod subscription;
