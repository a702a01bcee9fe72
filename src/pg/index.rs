//! An index of one of the extension's own tables, open for entering rows one by one.

use pgrx::pg_sys;

/// The lock is held to the end of the transaction, the rest until drop.
pub(super) struct Index {
    rel: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    /// Places of its columns in the table's; an expression has none.
    columns: Vec<usize>,
    unique: bool,
}

/// What enters an index.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Entries {
    /// Every row.
    All,
    /// Rows in which the column at this place is not null.
    NotNull(usize),
    /// What takes more than a look to know: an expression, another condition, a constraint that is deferred or excludes.
    Complex,
}

impl Index {
    /// None: it takes no entries yet.
    ///
    /// SAFETY: its table is open, and closed only after it. IndexInfo lives in the current memory context, which must outlive
    /// the index.
    pub unsafe fn open(oid: pg_sys::Oid) -> Option<Index> {
        // SAFETY: by contract; closed in drop, or by the abort that an ERROR leads to.
        unsafe {
            let rel = pg_sys::index_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let info = pg_sys::BuildIndexInfo(rel);
            let attributes = &(&(*info).ii_IndexAttrNumbers)[..(*info).ii_NumIndexAttrs as usize];
            let columns = attributes.iter().map(|&a| (a as usize).wrapping_sub(1)).collect();
            let index = Index { rel, info, columns, unique: (*info).ii_Unique };
            (*info).ii_ReadyForInserts.then_some(index)
        }
    }

    pub fn entries(&self) -> Entries {
        // SAFETY: the index is open. A condition is a list of clauses, each a node of the kind that its tag says.
        unsafe {
            let info = &*self.info;
            let deferred = self.unique && !(*(*self.rel).rd_index).indimmediate;
            if deferred || !info.ii_Expressions.is_null() || !info.ii_ExclusionOps.is_null() {
                return Entries::Complex;
            }
            let Some(condition) = info.ii_Predicate.as_ref() else { return Entries::All };
            let clause: *mut pg_sys::Node = (*condition.elements).ptr_value.cast();
            if condition.length != 1 || (*clause).type_ != pg_sys::NodeTag::T_NullTest {
                return Entries::Complex;
            }
            let test = &*clause.cast::<pg_sys::NullTest>();
            let arg: *mut pg_sys::Node = test.arg.cast();
            if test.nulltesttype != pg_sys::NullTestType::IS_NOT_NULL || (*arg).type_ != pg_sys::NodeTag::T_Var {
                return Entries::Complex;
            }
            match (*arg.cast::<pg_sys::Var>()).varattno {
                column @ 1.. => Entries::NotNull(column as usize - 1),
                _ => Entries::Complex,
            }
        }
    }

    pub fn name(&self) -> String {
        // SAFETY: the index is open; a name ends with a zero.
        unsafe { std::ffi::CStr::from_ptr((*(*self.rel).rd_rel).relname.data.as_ptr()).to_string_lossy().into_owned() }
    }

    /// Enters a row; what `check` says of a unique index. False: another row with its key, committed or in flight, stands there.
    ///
    /// SAFETY: the row stands in `heap` at `tid`; `values` and `nulls` are all that it has, and valid. Of a complex index no
    /// row can be entered.
    pub unsafe fn insert(
        &self,
        heap: pg_sys::Relation,
        values: *const pg_sys::Datum,
        nulls: *const bool,
        mut tid: pg_sys::ItemPointerData,
        check: pg_sys::IndexUniqueCheck::Type,
    ) -> bool {
        let mut key = [pg_sys::Datum::from(0); pg_sys::INDEX_MAX_KEYS as usize];
        let mut is_null = [false; pg_sys::INDEX_MAX_KEYS as usize];
        let check = if self.unique { check } else { pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO };
        // SAFETY: by contract; without a unique check the result means nothing.
        unsafe {
            for (place, &column) in self.columns.iter().enumerate() {
                (key[place], is_null[place]) = (*values.add(column), *nulls.add(column));
            }
            let (key, is_null) = (key.as_mut_ptr(), is_null.as_mut_ptr());
            let alone = pg_sys::index_insert(self.rel, key, is_null, &mut tid, heap, check, false, self.info);
            alone || !self.unique
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // SAFETY: closes what `open` opened; while an ERROR unwinds, the transaction's abort does it.
        unsafe {
            if std::thread::panicking() {
                return;
            }
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            pg_sys::index_insert_cleanup(self.rel, self.info);
            pg_sys::index_close(self.rel, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// The indexes of a table.
///
/// SAFETY: the table is open.
pub(super) unsafe fn indexes_of(rel: pg_sys::Relation) -> Vec<pg_sys::Oid> {
    // SAFETY: by contract; the list is a copy, of as many oids as it says.
    unsafe {
        let list = pg_sys::RelationGetIndexList(rel);
        let Some(oids) = list.as_ref() else { return Vec::new() };
        let oids = std::slice::from_raw_parts(oids.elements, oids.length as usize);
        let oids = oids.iter().map(|cell| cell.oid_value).collect();
        pg_sys::list_free(list);
        oids
    }
}
