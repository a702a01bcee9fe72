//! The verbs that move prepaid credit, holds on it, and the balance.
//!
//! ```text
//! args.rs ─ verbs.rs: top_up, grant_credit, debit               ┐
//!           transfer.rs: between two wallets                    │
//!           take_back.rs: refund, void_grant, expire_now        ├─ position.rs: what is there after all debts
//!           holds.rs: hold, capture, release                    │    └ billing::open: open usage, as its invoice
//!           batch.rs: many debits at once                       ┘
//! balance.rs: wallet_balance
//! ```
//! The ledger and its protocol are `src/ledger`.

mod args;
mod balance;
mod batch;
mod holds;
mod position;
mod take_back;
mod transfer;
mod verbs;
