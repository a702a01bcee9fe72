//! meterflow: usage metering and billing inside PostgreSQL.
//!
//! The rooms, in the order data flows. `core` is plain Rust and never mentions PostgreSQL; `pg` is everything that
//! touches its internals and holds every `unsafe`; the rest are domains, which import `core`, `pg` and `meters` but
//! not each other, except usage, rating, ledger ← billing ← wallet, access. SQL objects are written by hand in `sql/`, in step with the
//! domains; Rust gives no DDL of its own.

#![deny(unsafe_op_in_unsafe_fn)]
// What SQL functions return is spelled out where they are declared, and nowhere else.
#![allow(clippy::type_complexity)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::undocumented_unsafe_blocks)]

mod core;
mod pg;

mod access; // entitlements and grants, burned down by usage
mod aggregates; // the same states for analysts' own tables
mod billing; // usage and subscriptions → charges, invoices
mod documents; // an invoice → HTML and PDF, by a program of its own
mod ingest; // JSON → events, keys, deltas: one transaction, the caller's
mod ledger; // prepaid credit: grants, entries, locks
mod meters; // what is measured, and raw events read back
mod outbox; // messages to the outside, in the order in which they were written
mod rating; // usage → money
mod rollup; // deltas → hour → day → month, by one folder at a time
mod usage; // rollups ∪ deltas ∪ raw edges, in one snapshot; verify
mod wallet; // the verbs that move credit, holds, the balance
mod worker; // the launcher and one worker a database

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

// The install script, in this order.
extension_sql_file!("../sql/00_schema.sql", name = "schema", bootstrap);
extension_sql_file!("../sql/10_ingest.sql", name = "ingest", requires = ["schema"]);
extension_sql_file!("../sql/15_rollups.sql", name = "rollups", requires = ["ingest"]);
extension_sql_file!("../sql/20_meters.sql", name = "meters", requires = ["rollups"]);
extension_sql_file!("../sql/40_usage.sql", name = "usage", requires = ["meters"]);
extension_sql_file!("../sql/50_aggregates.sql", name = "aggregates", requires = ["usage"]);
extension_sql_file!("../sql/55_pricing.sql", name = "pricing", requires = ["aggregates"]);
extension_sql_file!("../sql/56_calendar.sql", name = "calendar", requires = ["pricing"]);
extension_sql_file!("../sql/60_catalogue.sql", name = "catalogue", requires = ["calendar"]);
extension_sql_file!("../sql/62_subscriptions.sql", name = "subscriptions", requires = ["catalogue"]);
extension_sql_file!("../sql/63_subscription_changes.sql", name = "subscription_changes", requires = ["subscriptions"]);
extension_sql_file!("../sql/64_invoices.sql", name = "invoices", requires = ["subscription_changes"]);
extension_sql_file!("../sql/65_outbox.sql", name = "outbox", requires = ["invoices"]);
extension_sql_file!("../sql/66_billing.sql", name = "billing", requires = ["outbox"]);
extension_sql_file!("../sql/68_payments.sql", name = "payments", requires = ["billing"]);
extension_sql_file!("../sql/69_one_off.sql", name = "one_off", requires = ["payments"]);
extension_sql_file!("../sql/70_wallets.sql", name = "wallets", requires = ["one_off"]);
extension_sql_file!("../sql/71_ledger.sql", name = "ledger", requires = ["wallets"]);
extension_sql_file!("../sql/72_explain.sql", name = "explain", requires = ["ledger"]);
extension_sql_file!("../sql/73_holds.sql", name = "holds", requires = ["explain"]);
extension_sql_file!("../sql/74_entitlements.sql", name = "entitlements", requires = ["holds"]);
extension_sql_file!("../sql/75_documents.sql", name = "documents", requires = ["entitlements"]);
extension_sql_file!("../sql/76_invoice_document.sql", name = "invoice_document", requires = ["documents"]);
extension_sql_file!("../sql/77_top_up_rules.sql", name = "top_up_rules", requires = ["invoice_document"]);
extension_sql_file!("../sql/78_wallet_history.sql", name = "wallet_history", requires = ["top_up_rules"]);
extension_sql_file!("../sql/79_alerts.sql", name = "alerts", requires = ["wallet_history"]);
extension_sql_file!("../sql/80_operations.sql", name = "operations", requires = ["alerts"]);

#[pg_guard]
extern "C-unwind" fn _PG_init() {
    pg::settings::define();
    worker::define_settings();
    worker::register();
    pg::settings::reserve_prefix();
}
