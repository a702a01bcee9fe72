//! The pure core, compiled without PostgreSQL: laws of states, calendars and prices, parsers against what they must
//! refuse. Property tests run here; what needs a server is in pg_regress, isolation and client.

#[path = "../src/core/mod.rs"]
#[allow(dead_code, unused_imports, clippy::type_complexity)]
mod core;

#[path = "core/calendar.rs"]
mod calendar;
#[path = "core/cover.rs"]
mod cover;
#[path = "core/cycle.rs"]
mod cycle;
#[path = "core/decimal.rs"]
mod decimal_tests;
#[path = "core/delta.rs"]
mod delta;
#[path = "core/entitlement/mod.rs"]
mod entitlement;
#[path = "core/event.rs"]
mod event;
#[path = "core/invoice.rs"]
mod invoice;
#[path = "core/ledger.rs"]
mod ledger;
#[path = "core/meter.rs"]
mod meter;
#[path = "vectors/peers.rs"]
mod peers;
#[path = "core/pricing/mod.rs"]
mod pricing;
#[path = "core/proration.rs"]
mod proration;
#[path = "core/proration_peers.rs"]
mod proration_peers;
#[path = "core/ranges.rs"]
mod ranges;
#[path = "core/split.rs"]
mod split;
#[path = "core/state.rs"]
mod state_tests;
#[path = "core/subscription.rs"]
mod subscription;
