//! The write side of the outbox: the fence that lets readers know which numbers are decided. The protocol is on top of
//! sql/65_outbox.sql.

use std::cell::Cell;

use pgrx::prelude::*;

use crate::pg::error::{Outcome, raise};
use crate::pg::lock;
use crate::pg::spi::{self, See};

thread_local! {
    /// The number that this session fenced last. Whether that still holds is asked of the lock: it goes with the
    /// transaction, and with a subtransaction that is rolled back.
    static FENCED: Cell<i64> = const { Cell::new(-1) };
}

/// Before a message takes its number: whoever has a number above N that is not decided holds a lock on N or less.
#[pg_extern(sql = "")]
fn outbox_fence() {
    raise(fence())
}

fn fence() -> Outcome<()> {
    if lock::outbox_is_fenced(FENCED.get()) {
        return Ok(());
    }
    let last = spi::one(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM meterflow.outbox_id_seq",
        &[],
        See::Write,
        |row| row.int8(0),
    )?
    .unwrap_or(0);
    lock::fence_outbox(last);
    FENCED.set(last);
    Ok(())
}
