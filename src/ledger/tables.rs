//! The ledger's tables: by which index rows are found, and what rows are written. Under the lock nothing is searched for
//! but by key, so a verb costs the same whatever else there is, and whatever the planner believed when it first ran.

use crate::pg::cell::Kind;
use crate::pg::scan::Table;
use crate::pg::write::Target;

pub static TOTALS: Table = Table {
    name: "wallet_totals",
    parts: &[("wallet_totals", "wallet_totals_pkey")],
    key: &["tenant_id", "customer_id", "currency"],
    columns: &["totals"],
    filled: true,
    ..Table::PLAIN
};

pub static WALLETS: Table = Table {
    name: "wallets",
    parts: &[("wallets", "wallets_name_key")],
    key: &["tenant_id", "customer_id", "currency", "name"],
    columns: &[
        "id",
        "credit_unit",
        "name",
        "kind",
        "credit_limit",
        "priority",
        "meters",
        "prices",
        "plans",
        "charges",
        "currency",
    ],
    filled: true,
    ..Table::PLAIN
};

pub static CREDIT_UNITS: Table = Table {
    name: "credit_units",
    parts: &[("credit_units", "credit_units_pkey")],
    key: &["tenant_id", "key"],
    columns: &["rate"],
    ..Table::PLAIN
};

pub static RECURRING: Table = Table {
    name: "recurring_grants",
    parts: &[("recurring_grants", "recurring_grants_wallet_idx")],
    key: &["tenant_id", "wallet_id"],
    columns: &["id"],
    ..Table::PLAIN
};

/// Grants that began after they were written down and have something left; they may have expired.
pub static LATER: Table = Table {
    name: "credit_grants",
    parts: &[("credit_grants", "credit_grants_later_idx")],
    key: &["tenant_id", "wallet_id", "expires_at"],
    columns: &["id", "remaining", "kind", "priority", "effective_at", "expires_at", "created_at"],
    only: Some("NOT summed AND NOT spent"),
    filled: true,
    ..Table::PLAIN
};

/// Grants that sums are of and that have something left; what burns first comes first.
pub static SUMMED: Table = Table {
    name: "credit_grants",
    parts: &[("credit_grants", "credit_grants_summed_idx")],
    key: &["tenant_id", "wallet_id", "priority", "kind", "expires_at", "effective_at", "created_at", "id"],
    columns: &["id", "remaining", "kind", "priority", "effective_at", "expires_at", "created_at"],
    only: Some("summed AND NOT spent"),
    filled: true,
    ..Table::PLAIN
};

/// The same, to be burned.
pub static BURNING: Table = Table { to_write: true, ..SUMMED };

/// Holds that nobody has closed, by when they expire; they may have.
pub static OPEN_HOLDS: Table = Table {
    name: "holds",
    parts: &[("holds", "holds_open_idx")],
    key: &["tenant_id", "customer_id", "currency", "expires_at"],
    columns: &["amount", "meter_key", "expires_at", "quantity"],
    only: Some("status = 'open'"),
    filled: true,
    ..Table::PLAIN
};

pub static SUBSCRIPTIONS: Table = Table {
    name: "subscriptions",
    parts: &[("subscriptions", "subscriptions_customer_idx")],
    key: &["tenant_id", "customer_id"],
    columns: &["plan_key", "plan_version"],
    ..Table::PLAIN
};

/// Customers by who pays for them.
pub static PAID_FOR: Table = Table {
    name: "customers",
    parts: &[("customers", "customers_payer_idx")],
    key: &["tenant_id", "payer_id"],
    columns: &["id"],
    only: Some("payer_id IS NOT NULL"),
    ..Table::PLAIN
};

/// Invoices to be paid.
pub static UNPAID: Table = Table {
    name: "invoices",
    parts: &[("invoices", "invoices_open_idx")],
    key: &["tenant_id", "customer_id"],
    columns: &["currency", "amount_due", "amount_paid", "amount_offset"],
    only: Some("status = 'finalized'"),
    ..Table::PLAIN
};

/// Alerts of balances, which have to hear of every change.
pub static ALERTS: Table = Table {
    name: "alerts",
    parts: &[("alerts", "alerts_customer_idx")],
    key: &["tenant_id", "what"],
    columns: &["key"],
    only: Some("enabled"),
    ..Table::PLAIN
};

pub static TOP_UP_RULES: Table = Table {
    name: "top_up_rules",
    parts: &[("top_up_rules", "top_up_rules_pkey")],
    key: &["tenant_id"],
    columns: &["enabled"],
    ..Table::PLAIN
};

pub static CONSUMERS: Table = Table {
    name: "outbox_consumers",
    parts: &[("outbox_consumers", "outbox_consumers_pkey")],
    key: &["tenant_id"],
    columns: &["kinds"],
    ..Table::PLAIN
};

/// Transactions by what they are retried with.
pub static TRANSACTION_KEYS: Table = Table {
    name: "wallet_transactions",
    parts: &[("wallet_transactions", "wallet_transactions_idempotency_key")],
    key: &["tenant_id", "idempotency_key"],
    columns: KEYED,
    filled: true,
    to_write: true,
    ..Table::PLAIN
};

pub static HOLD_KEYS: Table = Table {
    name: "holds",
    parts: &[("holds", "holds_idempotency_key")],
    key: &["tenant_id", "idempotency_key"],
    columns: KEYED,
    to_write: true,
    ..Table::PLAIN
};

const KEYED: &[&str] = &["id", "body_hash", "created_at"];

pub static HOLDS: Table = Table {
    name: "holds",
    parts: &[("holds", "holds_pkey")],
    key: &["tenant_id", "id"],
    columns: &[
        "customer_id",
        "currency",
        "amount",
        "meter_key",
        "expires_at",
        "status",
        "captured",
        "transaction_id",
        "created_at",
        "quantity",
    ],
    filled: true,
    to_write: true,
    ..Table::PLAIN
};

pub static WRITE_TRANSACTIONS: Target = Target {
    name: "wallet_transactions",
    columns: &[
        ("tenant_id", Kind::Text),
        ("id", Kind::Int8),
        ("customer_id", Kind::Text),
        ("currency", Kind::Text),
        ("kind", Kind::Text),
        ("amount", Kind::Numeric),
        ("description", Kind::Text),
        ("reverses", Kind::Int8),
        ("invoice_id", Kind::Int8),
        ("hold_id", Kind::Int8),
        ("idempotency_key", Kind::Text),
        ("body_hash", Kind::Bytes),
        ("created_at", Kind::Time),
        ("created_by", Kind::Text),
    ],
    index: "wallet_transactions_pkey",
    key: &["tenant_id", "id"],
};

pub static WRITE_ENTRIES: Target = Target {
    name: "ledger_entries",
    columns: &[
        ("tenant_id", Kind::Text),
        ("transaction_id", Kind::Int8),
        ("entry", Kind::Int4),
        ("wallet_id", Kind::Int8),
        ("grant_id", Kind::Int8),
        ("account", Kind::Text),
        ("amount", Kind::Numeric),
        ("worth", Kind::Numeric),
        ("effective_at", Kind::Time),
        ("created_at", Kind::Time),
    ],
    index: "ledger_entries_pkey",
    key: &["tenant_id", "transaction_id", "entry"],
};

pub static WRITE_GRANTS: Target = Target {
    name: "credit_grants",
    columns: &[
        ("tenant_id", Kind::Text),
        ("id", Kind::Int8),
        ("wallet_id", Kind::Int8),
        ("transaction_id", Kind::Int8),
        ("kind", Kind::Text),
        ("amount", Kind::Numeric),
        ("remaining", Kind::Numeric),
        ("spent", Kind::Bool),
        ("priority", Kind::Int4),
        ("effective_at", Kind::Time),
        ("expires_at", Kind::Time),
        ("summed", Kind::Bool),
        ("recurring_id", Kind::Int8),
        ("occurrence", Kind::Int8),
        ("part", Kind::Int2),
        ("created_at", Kind::Time),
    ],
    index: "credit_grants_pkey",
    key: &["tenant_id", "id"],
};

/// Where `remaining` stands in it.
pub const REMAINING: usize = 6;

pub static WRITE_TOTALS: Target = Target {
    name: "wallet_totals",
    columns: &[
        ("tenant_id", Kind::Text),
        ("customer_id", Kind::Text),
        ("currency", Kind::Text),
        ("totals", Kind::Json),
    ],
    index: "wallet_totals_pkey",
    key: &["tenant_id", "customer_id", "currency"],
};

/// Where `customer_id` and `totals` stand in it.
pub const LOCKED_CUSTOMER: usize = 1;
pub const LOCKED_TOTALS: usize = 3;

pub static WRITE_HOLDS: Target = Target {
    name: "holds",
    columns: &[
        ("tenant_id", Kind::Text),
        ("id", Kind::Int8),
        ("customer_id", Kind::Text),
        ("currency", Kind::Text),
        ("amount", Kind::Numeric),
        ("meter_key", Kind::Text),
        ("quantity", Kind::Numeric),
        ("expires_at", Kind::Time),
        ("status", Kind::Text),
        ("captured", Kind::Numeric),
        ("transaction_id", Kind::Int8),
        ("closed_at", Kind::Time),
        ("idempotency_key", Kind::Text),
        ("body_hash", Kind::Bytes),
        ("created_at", Kind::Time),
        ("created_by", Kind::Text),
    ],
    index: "holds_pkey",
    key: &["tenant_id", "id"],
};
