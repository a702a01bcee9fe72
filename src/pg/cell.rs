//! Values on their way into a table: as PostgreSQL keeps them, or as arguments of a query.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

use super::numeric::NumericOut;

/// The type of a column.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Json,
    Bytes,
    Int2,
    Int4,
    Int8,
    Bool,
    Time,
    Numeric,
}

impl Kind {
    pub(super) fn oid(self) -> pg_sys::Oid {
        match self {
            Kind::Text => pg_sys::TEXTOID,
            Kind::Json => pg_sys::JSONOID,
            Kind::Bytes => pg_sys::BYTEAOID,
            Kind::Int2 => pg_sys::INT2OID,
            Kind::Int4 => pg_sys::INT4OID,
            Kind::Int8 => pg_sys::INT8OID,
            Kind::Bool => pg_sys::BOOLOID,
            Kind::Time => pg_sys::TIMESTAMPTZOID,
            Kind::Numeric => pg_sys::NUMERICOID,
        }
    }
}

/// A value of a column; JSON is text.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    Null,
    Text(&'a str),
    Bytes(&'a [u8]),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Bool(bool),
    /// Unix microseconds.
    Time(i64),
    Numeric(NumericOut),
}

impl<'a, T> From<Option<T>> for Cell<'a>
where
    Cell<'a>: From<T>,
{
    fn from(value: Option<T>) -> Cell<'a> {
        value.map_or(Cell::Null, Cell::from)
    }
}

macro_rules! cells {
    ($($type:ty => $cell:ident),*) => {
        $(
            impl<'a> From<$type> for Cell<'a> {
                fn from(value: $type) -> Cell<'a> {
                    Cell::$cell(value)
                }
            }
        )*
    };
}

cells!(&'a str => Text, &'a [u8] => Bytes, i16 => Int2, i32 => Int4, i64 => Int8, bool => Bool, NumericOut => Numeric);

impl Cell<'_> {
    /// In the current memory context.
    pub(super) fn datum(&self) -> pg_sys::Datum {
        use pg_sys::Datum;
        // SAFETY: copies the bytes, as text or bytea, which are laid out alike.
        let copy = |bytes: &[u8]| unsafe {
            Datum::from(pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32))
        };
        match self {
            Cell::Null => Datum::from(0),
            Cell::Text(text) => copy(text.as_bytes()),
            Cell::Bytes(bytes) => copy(bytes),
            Cell::Int2(n) => Datum::from(*n),
            Cell::Int4(n) => Datum::from(*n),
            Cell::Int8(n) => Datum::from(*n),
            Cell::Bool(flag) => Datum::from(*flag),
            Cell::Time(at) => Datum::from(super::datum::pg_micros(*at)),
            Cell::Numeric(numeric) => numeric.datum(),
        }
    }

    /// As an argument of a query.
    pub(super) fn argument<'b>(&self, kind: Kind) -> DatumWithOid<'b> {
        match self {
            Cell::Null => DatumWithOid::null_oid(kind.oid()),
            // SAFETY: a value of the column's kind, as every row has it there.
            _ => unsafe { DatumWithOid::new(self.datum(), kind.oid()) },
        }
    }
}
