//! Prepaid credit: what a customer's wallets hold in one currency, and what burns first.
//!
//! A **grant** is credit with a life: from `effective_at` inclusive to `expires_at` exclusive. A **lot** is what burns as
//! one: a grant, or a **sum** over grants of one wallet, priority and kind that expire one after the other, between which
//! nothing else burns. A **purse** is all of a customer in one currency; it answers what is there, what a debt takes, and
//! what is missing. Nothing here knows a clock: time is an argument.
//!
//! **Burn order**, total: priority of the wallet, priority of the grant, expiry (none last), promotional before
//! purchased, start, creation, id. Credit units that had begun when they were written down and never expire burn as one in
//! each wallet, before those that began later: each is worth what is left when it is rounded down, and all of them more.
//!
//! **Which grant pays what.** A debt has a time: now; of a billing period that has ended, its end; of a hold, when it was
//! made. A grant pays what it had not outlived then, so an allowance for June pays for June also in an invoice of July.
//! Of an invoice promotional credit must also have begun by then: July's allowance does not pay for June. Purchased credit
//! is money and pays old debts too.
//!
//! **Overdraft.** A wallet can be made to owe. The next grant that begins pays that first, before anything else sees it.

mod purse;
mod recurring;
mod totals;

pub use purse::{Life, Limit, Lot, Purse, Source, Taken, Unit, Wallet, minor_of};
pub use recurring::{Part, Recurring, parts};
pub use totals::{Sum, Totals};
