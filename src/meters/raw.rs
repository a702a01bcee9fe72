//! Raw events read back: what a reader falls back to at the edges of a period and in dirty ranges, what a rebuild
//! starts from, and what `verify` compares with.

use std::rc::Rc;

use pgrx::datum::DatumWithOid;

use crate::core::key::Secret;
use crate::core::meter::Meter;
use crate::core::properties::Scratch;
use crate::core::properties::Tape;
use crate::core::state::Sample;
use crate::pg::error::{Fail, Outcome};
use crate::pg::lock::check_for_interrupts;
use crate::pg::spi::{self, See};

/// Nesting that ingest accepts, and so the most that is stored.
pub const MAX_DEPTH: usize = 32;

/// Which events to read: stored, not taken back, in one stretch of time.
pub struct Scope<'a> {
    pub tenant: &'a str,
    pub customer: Option<&'a str>,
    pub event_name: &'a str,
    /// Unix microseconds, half-open.
    pub from: i64,
    pub to: i64,
    pub known: Known<'a>,
}

/// Which batches of events and corrections to take.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// None that comes after this one: what a fold has reached, or an invoice knew.
    pub last: i64,
    /// And none of these before it, which had not committed by then.
    pub missing: &'a [i64],
}

impl Known<'_> {
    pub const ALL: Known<'static> = Known { last: i64::MAX, missing: &[] };
}

/// Reads the events of a scope that one of `meters` counts; calls `each` with the customer, the properties and
/// every sample. The statement's snapshot decides what is seen.
pub fn samples(
    scope: &Scope<'_>,
    meters: &[Rc<Meter>],
    secret: &Secret,
    see: See,
    mut each: impl FnMut(&str, &Meter, &Tape<'_>, &Sample) -> Outcome<()>,
) -> Outcome<()> {
    // The customer predicate is part of the text so that each form gets a plan of its own.
    let by_customer = if scope.customer.is_some() { "AND e.customer_id = $6" } else { "AND $6::text IS NULL" };
    let sql = format!(
        "SELECT e.customer_id, e.timestamp, e.seq, e.properties::text FROM meterflow.events e \
         WHERE e.tenant_id = $1 AND e.event_name = $2 AND e.timestamp >= $3 AND e.timestamp < $4 AND e.seq >> 16 <= $5 AND e.seq >> 16 <> ALL ($7) {by_customer} \
           AND NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.tenant_id = e.tenant_id AND c.seq = e.seq AND c.batch <= $5 AND c.batch <> ALL ($7))"
    );
    let mut scratch = Scratch::default();
    let args: [DatumWithOid<'_>; 7] = [
        scope.tenant.into(),
        scope.event_name.into(),
        spi::time(scope.from),
        spi::time(scope.to),
        scope.known.last.into(),
        scope.customer.into(),
        scope.known.missing.to_vec().into(),
    ];
    spi::stream(&sql, &args, see, |row| {
        check_for_interrupts();
        let (at, seq) = (row.time(1)?, row.int8(2)?);
        let customer = row.text(0)?;
        let properties = row.text(3)?;
        let tape = scratch
            .read(&properties, MAX_DEPTH + 1)
            .map_err(|fault| Fail::corrupt(format!("stored event {seq} can not be read: {fault}")))?;
        for meter in meters.iter().filter(|meter| meter.applies(scope.event_name, at)) {
            // An event stored before the meter was made may hold a value the meter can't take: it was accepted, so
            // it can't fail now. The meter passes over it, as it does for an absent property.
            if let Ok(Some(sample)) = meter.sample(&tape, at, seq, secret) {
                each(&customer, meter, &tape, &sample)?;
            }
        }
        Ok(())
    })
}
