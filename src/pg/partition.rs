//! Which partition of `events` a time belongs to, from PostgreSQL's own cached partition descriptor.

use pgrx::pg_sys;

use super::datum::unix_micros;

/// A partition and its half-open range in Unix microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leaf {
    pub from: i64,
    pub to: i64,
    pub oid: pg_sys::Oid,
}

/// The partitions of a table ranged by one `timestamptz`, in order of time.
pub fn leaves(parent: pg_sys::Oid) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    // SAFETY: the relation is open while its descriptor is read; `indexes` has one more entry than `datums`, and
    // entry i stands for values from bound i-1 (or minus infinity) up to bound i.
    unsafe {
        let rel = pg_sys::table_open(parent, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let desc = pg_sys::RelationGetPartitionDesc(rel, true);
        if (*desc).nparts > 0 {
            let bounds = (*desc).boundinfo;
            let bound = |i: usize| {
                let kind = *(*(*bounds).kind.add(i));
                if kind == pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_VALUE {
                    unix_micros((*(*(*bounds).datums.add(i))).value() as i64)
                } else if kind == pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MINVALUE {
                    i64::MIN
                } else {
                    i64::MAX
                }
            };
            for i in 1..(*bounds).ndatums as usize {
                let part = *(*bounds).indexes.add(i);
                if part >= 0 {
                    leaves.push(Leaf { from: bound(i - 1), to: bound(i), oid: *(*desc).oids.add(part as usize) });
                }
            }
        }
        pg_sys::table_close(rel, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
    leaves
}

/// The leaf of a time, if there is one.
pub fn find(leaves: &[Leaf], at: i64) -> Option<usize> {
    let next = leaves.partition_point(|leaf| leaf.to <= at);
    leaves.get(next).filter(|leaf| leaf.from <= at).map(|_| next)
}
