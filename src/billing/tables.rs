//! Tables that open charges are read from, by the index that finds a customer's rows. Most customers have nothing in most of
//! them, and a look that finds nothing costs a part of the query that would read it.

use crate::pg::scan::Table;

/// A customer by its id.
pub static CUSTOMERS: Table = Table {
    name: "customers",
    parts: &[("customers", "customers_pkey")],
    key: &["tenant_id", "id"],
    columns: &["payer_id", "taxes", "tax_exempt"],
    filled: true,
    ..Table::PLAIN
};

pub static REDEMPTIONS: Table = Table {
    name: "coupon_redemptions",
    parts: &[("coupon_redemptions", "coupon_redemptions_customer_idx")],
    key: &["tenant_id", "customer_id"],
    columns: &["id"],
    ..Table::PLAIN
};

pub static TAXES: Table = Table {
    name: "taxes",
    parts: &[("taxes", "taxes_pkey")],
    key: &["tenant_id", "key"],
    columns: &["key"],
    ..Table::PLAIN
};

pub static ACCOUNT_CREDITS: Table = Table {
    name: "account_credits",
    parts: &[("account_credits", "account_credits_customer_idx")],
    key: &["tenant_id", "customer_id", "currency"],
    columns: &["id"],
    ..Table::PLAIN
};

/// Lines of subscriptions' invoices, drafts and voided ones too.
pub static BILLED: Table = Table {
    name: "invoice_lines",
    parts: &[("invoice_lines", "invoice_lines_subscription_idx")],
    key: &["tenant_id", "subscription_id", "cycle_end"],
    columns: &["line"],
    ..Table::PLAIN
};

pub static PLANS: Table = Table {
    name: "plans",
    parts: &[("plans", "plans_pkey")],
    key: &["tenant_id", "key", "version"],
    columns: &["currency"],
    ..Table::PLAIN
};
