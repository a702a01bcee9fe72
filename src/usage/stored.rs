//! What a question reads: rows of six tables, each found by its index in the statement's snapshot.

use crate::core::cover::Stored;
use crate::core::delta::{self, Entry};
use crate::core::key;
use crate::meters::{self, Catalogue};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::lock;
use crate::pg::scan::{Is, Reader, Table, Term, Value};
use crate::pg::spi::{self, See};

use super::source::{Question, unreadable};

static FOLD_STATE: Table =
    Table { name: "fold_state", parts: &[("fold_state", "fold_state_pkey")], key: &["singleton"], ..Table::PLAIN };

static DIRTY_RANGES: Table = Table {
    name: "dirty_ranges",
    parts: &[("dirty_ranges", "dirty_ranges_idx")],
    key: &["tenant_id", "meter_id"],
    ..Table::PLAIN
};

static ROLLUPS: Table = Table {
    name: "rollups",
    parts: &[("rollups", "rollups_pkey")],
    key: &["tenant_id", "meter_id", "grain", "customer_id", "bucket"],
    ..Table::PLAIN
};

/// The parent stays empty.
static DELTAS: Table = Table {
    name: "deltas",
    parts: &[
        ("deltas_0", "deltas_0_idx"),
        ("deltas_1", "deltas_1_idx"),
        ("deltas_2", "deltas_2_idx"),
        ("deltas_3", "deltas_3_idx"),
    ],
    key: &["bucket", "batch"],
    ..Table::PLAIN
};

/// What a snapshot says about the stored state of the whole database.
pub struct Base {
    pub folded_batch: i64,
    pub stored: Stored,
    pub catalogue: Catalogue,
}

impl Base {
    pub fn read() -> Outcome<Base> {
        let catalogue = meters::catalogue()?;
        let mut base = None;
        Reader::open(&FOLD_STATE)?.rows(&[(0, Is::Equal, Value::Bool(true))], |row| {
            let stored = Stored {
                closed_day: row.time(4)?,
                hour_floor: row.time(5)?,
                day_floor: row.time(6)?,
                raw_floor: row.time(7)?,
            };
            base = Some(Base { folded_batch: row.int8(1)?, stored, catalogue });
            Ok(())
        })?;
        base.ok_or_else(|| Fail::corrupt("meterflow.fold_state is empty"))
    }
}

pub struct DirtyRanges<'q> {
    question: &'q Question<'q>,
    reader: Reader,
}

impl<'q> DirtyRanges<'q> {
    pub fn open(question: &'q Question<'q>) -> Outcome<DirtyRanges<'q>> {
        Ok(DirtyRanges { question, reader: Reader::open(&DIRTY_RANGES)? })
    }

    /// Those of a meter that concern the question, sorted by start. A range of one customer counts for a question about
    /// all: coarser than need be, and exact.
    pub fn of(&mut self, meter: i32) -> Outcome<Vec<(i64, i64)>> {
        let mut ranges = Vec::new();
        let wanted = self.question.customer;
        let terms = [(0, Is::Equal, Value::Text(self.question.tenant)), (1, Is::Equal, Value::Int4(meter))];
        self.reader.rows(&terms, |row| {
            if wanted.is_none() || row.is_null(3) || wanted == Some(&*row.bytes(3)?.text()) {
                ranges.push((row.time(4)?, row.time(5)?));
            }
            Ok(())
        })?;
        ranges.sort_unstable();
        Ok(ranges)
    }
}

pub struct Rollups<'q> {
    question: &'q Question<'q>,
    reader: Reader,
}

impl<'q> Rollups<'q> {
    pub fn open(question: &'q Question<'q>) -> Outcome<Rollups<'q>> {
        Ok(Rollups { question, reader: Reader::open(&ROLLUPS)? })
    }

    /// Hands over bucket, customer, group and state of a meter's rollups of one grain in a stretch of time.
    pub fn of(
        &mut self,
        meter: i32,
        grain: u8,
        from: i64,
        to: i64,
        mut each: impl FnMut(i64, &str, &str, &[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut terms: Vec<Term<'_>> = vec![
            (0, Is::Equal, Value::Text(self.question.tenant)),
            (1, Is::Equal, Value::Int4(meter)),
            (2, Is::Equal, Value::Letter(grain)),
        ];
        terms.extend(self.question.customer.map(|customer| (3, Is::Equal, Value::Text(customer))));
        terms.extend([(4, Is::AtLeast, Value::Time(from)), (4, Is::Below, Value::Time(to))]);
        self.reader.rows(&terms, |row| each(row.time(4)?, &row.bytes(3)?.text(), &row.bytes(5)?.text(), &row.bytes(7)?))
    }
}

/// Hands over customer and entry of the deltas after `base.folded_batch` that concern the question.
pub fn deltas(
    question: &Question<'_>,
    base: &Base,
    mut each: impl FnMut(&str, Entry<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let wanted = question.customer;
    // All customers: bucket by bucket, so that what is folded and not dropped yet is passed over.
    let buckets = match wanted {
        Some(customer) => {
            let bucket = delta::bucket_of(key::subject(&base.catalogue.secret, question.tenant, customer));
            bucket..=bucket
        }
        None => 0..=delta::BUCKETS as i16 - 1,
    };
    let mut reader = Reader::open(&DELTAS)?;
    for bucket in buckets {
        let terms = [(0, Is::Equal, Value::Int2(bucket)), (1, Is::Above, Value::Int8(base.folded_batch))];
        reader.rows(&terms, |row| {
            if *row.bytes(2)? != *question.tenant.as_bytes() {
                return Ok(());
            }
            for customer in delta::customers(&row.bytes(3)?) {
                let (customer, packed) = customer.map_err(unreadable)?;
                if wanted.is_none_or(|wanted| wanted == customer) {
                    for entry in delta::entries(packed) {
                        each(customer, entry.map_err(unreadable)?)?;
                    }
                }
            }
            Ok(())
        })?;
    }
    drop(reader);
    check_not_emptied(base)
}

/// On a standby, deltas may have been thrown away that this snapshot still needs (`rollup/slots.rs`).
fn check_not_emptied(base: &Base) -> Outcome<()> {
    if !lock::in_recovery() {
        return Ok(());
    }
    let emptied =
        spi::one("SELECT coalesce(max(emptied_batch), 0) FROM meterflow.delta_slots", &[], See::Latest, |row| {
            row.int8(0)
        })?;
    if emptied.unwrap_or(0) > base.folded_batch {
        return Err(Fail::new(
            SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "this snapshot is too old to answer usage from a standby",
        )
        .detail("Deltas it needs have been folded and dropped on the primary since.")
        .hint("Retry in a new transaction, or set hot_standby_feedback = on."));
    }
    Ok(())
}
