//! The ledger of prepaid credit: append-only, double entry, exact.
//!
//! # Protocol
//! 1. Lock. A verb that moves credit first locks the customer's row of `wallet_totals` for the currency, several in order
//!    of customer, and always after the customer's own row where it locks that too (invoices). Whoever else moves the
//!    customer's credit waits here. Under REPEATABLE READ and above a row that has changed since is a serialization error.
//! 2. Read: the row that is locked has the sums; wallets, and what grants have to be known one by one, in one snapshot taken
//!    after the lock. So what is found is what is there until the transaction ends. The clock is read after the lock too: of
//!    two holders the later has the later time, and what one takes for expired the other never burned since.
//! 3. Write what is due by now: occurrences of recurring grants, overdrafts that a grant has paid by beginning, sums of too
//!    many grants as several; and read again. Then the verb's own entries; with them, in the same transaction, the copies
//!    that make reads cheap: `credit_grants.remaining` and `wallet_totals.totals`.
//!
//! Reads lock nothing: one statement's snapshot has both or neither of an entry and its copies.
//!
//! # Invariants, which verify() checks
//! - What is left of a grant is the sum of its entries, and never below zero; the totals are those of grants and holds.
//! - Each entry takes from one side what it gives to the other; what a transfer or settlement takes adds up to zero.
//!
//! # Crash behaviour
//! All of a verb is in its caller's transaction: it is there or it is not. Its idempotency key says which.
//!
//! Proof: tests/isolation/specs/hold_*.spec, top_up_*.spec, debit_expiry.spec, refund_void.spec; tests/client ledger, a model.

mod account;
mod coming;
mod journal;
mod lock;
mod locked;
mod past;
mod reverse;
pub mod tables;
mod tell;
mod write;

pub use account::{Account, Books, Reserve, covers, load};
pub use journal::{Act, Journal, Portion, life};
pub use lock::{Locked, lock, lock_all};
pub use locked::{bring_locked_up_to, bring_up_to, locked};
pub use past::load_past;
pub use reverse::{Given, give_back};

use crate::core::decimal::QuantityError;
use crate::core::pricing::Amount;
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::numeric::NumericIn;
use crate::pg::spi::Row;

/// Sums and products that do not fit: 22003.
pub fn too_large(error: QuantityError) -> Fail {
    Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "an amount of credit is out of range")
        .detail(format!("{error}."))
        .hint("Amounts of credit have up to 24 decimals and 52 digits before the point.")
}

/// An amount as the ledger keeps it.
pub fn stored(row: &Row<'_>, column: usize) -> Outcome<Amount> {
    row.require::<NumericIn<'_>>(column)?
        .amount()
        .map_err(|error| Fail::corrupt(format!("a stored amount of credit can not be read: {error}")))
}
