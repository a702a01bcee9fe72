//! numeric and jsonb arguments as they are stored, without their text in between: a price is computed in less time than
//! it takes to print and read a number.
//!
//! Source of the format: PostgreSQL, `utils/adt/numeric.c`. After the varlena header comes a word that says sign,
//! decimals to show and weight (short form) or that another word with the weight follows (long form), then the digits
//! in base 10,000, the first one worth 10,000^weight, without zeros at either end. Proof: tests/pg_regress/sql/55_pricing.sql
//! compares with numeric's own input and arithmetic.

use std::ffi::CStr;

use ethnum::{I256, U256};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, impl_sql_translatable, pg_sys, varlena};

use crate::core::decimal::QuantityError;
use crate::core::pricing::{Amount, Money};

const SHORT: u16 = 0x8000;
const SPECIAL: u16 = 0xC000;
const SHORT_NEGATIVE: u16 = 0x2000;
const LONG_NEGATIVE: u16 = 0x4000;
/// What the short form can say.
const SHORT_SCALE_MAX: u32 = 63;

/// Whether a varlena is neither compressed nor kept elsewhere: most are as they are read.
///
/// SAFETY: the pointer is one to a varlena.
#[inline]
pub(super) unsafe fn is_plain(stored: *const pg_sys::varlena) -> bool {
    // SAFETY: by contract; the first byte says.
    unsafe { varlena::varatt_is_1b(stored) && !varlena::varatt_is_1b_e(stored) || varlena::varatt_is_4b_u(stored) }
}

/// The payload of a varlena, detoasted if it was toasted.
///
/// # Safety
/// The datum must be a varlena that lives as long as the function call that it is an argument of.
#[inline]
unsafe fn payload<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    let stored: *mut pg_sys::varlena = datum.cast_mut_ptr();
    // SAFETY: as promised by the caller; detoasting returns the same or a copy in the context of the call.
    unsafe {
        let plain = if is_plain(stored) { stored } else { pg_sys::pg_detoast_datum_packed(stored) };
        std::slice::from_raw_parts(varlena::vardata_any(plain).cast(), varlena::varsize_any_exhdr(plain))
    }
}

/// A numeric argument, unread.
#[derive(Clone, Copy)]
pub struct NumericIn<'a> {
    bytes: &'a [u8],
    datum: pg_sys::Datum,
}

impl NumericIn<'_> {
    /// Its value, or why it has none here; NaN and the infinities are a syntax error.
    pub fn amount(&self) -> Result<Amount, QuantityError> {
        read(self.bytes)
    }

    /// How many decimals it shows.
    pub fn decimals(&self) -> u32 {
        let head = word(self.bytes, 0);
        u32::from(if head & SPECIAL == SHORT { head >> 7 & 0x3f } else { head & 0x3fff })
    }

    /// As numeric writes it.
    pub fn text(&self) -> String {
        // SAFETY: the datum is the numeric that `bytes` was made of, which numeric_out prints.
        unsafe { printed(pg_sys::numeric_out, self.datum) }
    }
}

/// A jsonb argument, unread.
#[derive(Clone, Copy)]
pub struct JsonbIn<'a> {
    /// As it is stored: equal values have equal bytes.
    pub bytes: &'a [u8],
    datum: pg_sys::Datum,
}

impl JsonbIn<'_> {
    /// As text, with all digits of its numbers.
    pub fn text(&self) -> String {
        // SAFETY: the datum is the jsonb that `bytes` was made of, which jsonb_out prints.
        unsafe { printed(pg_sys::jsonb_out, self.datum) }
    }
}

/// What an output function writes.
///
/// # Safety
/// The datum must be of the type that the function is for.
unsafe fn printed(output: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum, datum: pg_sys::Datum) -> String {
    // SAFETY: as promised by the caller; an output function returns a C string.
    let text = unsafe { pgrx::direct_function_call::<&CStr>(output, &[Some(datum)]) };
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

macro_rules! argument {
    ($($type:ident is $sql:literal),*) => {
        $(
            impl FromDatum for $type<'_> {
                unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
                    // SAFETY: the SQL declaration says so: a varlena. Arguments live as long as the call.
                    (!is_null).then(|| $type { bytes: unsafe { payload(datum) }, datum })
                }
            }

            // SAFETY: what FromDatum reads is what the SQL declaration says.
            unsafe impl<'fcx> ArgAbi<'fcx> for $type<'fcx> {
                unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                    // SAFETY: as above; a null comes by the other door.
                    match unsafe { arg.unbox_arg_using_from_datum() } {
                        Some(value) => value,
                        None => pgrx::error!("an argument must not be null"),
                    }
                }

                unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
                    // SAFETY: as above.
                    unsafe { arg.unbox_arg_using_from_datum() }.into()
                }
            }

            // SAFETY: only the name of the type is told; it can't be returned.
            unsafe impl SqlTranslatable for $type<'_> {
                const TYPE_IDENT: &'static str = concat!(module_path!(), "::", stringify!($type));
                const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
                const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($sql));
                const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Err(ReturnsError::Datum);
            }
        )*
    };
}

argument!(NumericIn is "numeric", JsonbIn is "jsonb");

/// A numeric to return or to store: an amount with the decimals that it needs, or money with all of its currency.
#[derive(Clone, Copy)]
pub struct NumericOut {
    coefficient: I256,
    scale: u32,
    /// Decimals to show, if not those that are needed.
    shown: Option<u32>,
}

impl From<&Amount> for NumericOut {
    fn from(amount: &Amount) -> NumericOut {
        NumericOut { coefficient: amount.coefficient(), scale: amount.scale(), shown: None }
    }
}

impl From<Money> for NumericOut {
    fn from(money: Money) -> NumericOut {
        NumericOut { coefficient: money.minor(), scale: money.digits(), shown: Some(money.digits()) }
    }
}

impl_sql_translatable!(NumericOut, "numeric");

impl NumericOut {
    /// With at least so many decimals, as arithmetic would leave them.
    pub fn with_decimals(amount: &Amount, least: u32) -> NumericOut {
        let out = NumericOut::from(amount);
        let needed = Digits::of(out.coefficient.unsigned_abs(), out.scale).decimals();
        NumericOut { shown: Some(needed.max(least)), ..out }
    }

    /// As PostgreSQL keeps it, in the current memory context.
    pub fn datum(&self) -> pg_sys::Datum {
        let digits = Digits::of(self.coefficient.unsigned_abs(), self.scale);
        let shown = self.shown.unwrap_or_else(|| digits.decimals());
        let (header, length) = digits.header(self.coefficient.is_negative(), shown);
        let header = header.get(..length).unwrap_or_default();
        let body = digits.used();
        let size = 4 + header.len() * 2 + body.len() * 2;
        // SAFETY: `size` bytes are allocated, and the header, two-byte words and nothing else are written to them; palloc
        // aligns for any type.
        unsafe {
            let out = pg_sys::palloc(size);
            varlena::set_varsize_4b(out.cast(), size as i32);
            let words = out.cast::<u8>().add(4).cast::<u16>();
            words.copy_from_nonoverlapping(header.as_ptr(), header.len());
            words.add(header.len()).copy_from_nonoverlapping(body.as_ptr(), body.len());
            pg_sys::Datum::from(out)
        }
    }
}

// SAFETY: what is returned is a numeric, in memory of the caller's context.
unsafe impl BoxRet for NumericOut {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: a numeric in the context of the call.
        unsafe { fcinfo.return_raw_datum(self.datum()) }
    }
}

/// Two bytes of a stored numeric; beyond its end zero.
#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => u16::from_ne_bytes([a, b]),
        _ => 0,
    }
}

#[inline]
fn read(bytes: &[u8]) -> Result<Amount, QuantityError> {
    let head = word(bytes, 0);
    let (negative, weight, start) = match head & SPECIAL {
        SPECIAL => return Err(QuantityError::Syntax), // NaN and the infinities
        SHORT => {
            // Seven bits, of which the highest is the sign.
            let weight = ((head & 0x7f) as i8) << 1 >> 1;
            (head & SHORT_NEGATIVE != 0, i32::from(weight), 2)
        }
        sign => (sign == LONG_NEGATIVE, i32::from(word(bytes, 2).cast_signed()), 4),
    };
    let digits = bytes.get(start..).unwrap_or_default().chunks_exact(2);
    let digits = digits.map(|pair| if let &[a, b] = pair { u16::from_ne_bytes([a, b]) } else { 0 });
    Amount::from_base_10000(negative, digits, weight)
}

/// Digits in base 10,000, without zeros at either end.
struct Digits {
    words: [u16; Digits::MOST],
    first: usize,
    last: usize,
    weight: i32,
}

impl Digits {
    /// 77 digits make 20 words, and one more where the point cuts one in two; 76 decimals of a small number as many.
    const MOST: usize = 24;

    /// Those of `magnitude` · 10^-`scale`, with a scale of at most 76.
    fn of(magnitude: U256, scale: u32) -> Digits {
        let mut digits = Digits { words: [0; Digits::MOST], first: Digits::MOST, last: Digits::MOST, weight: 0 };
        // The last word is cut by the end of the decimals: its digits are followed by zeros.
        let cut = scale % 4;
        let filled = match cut {
            0 => u64::try_from(magnitude).ok(),
            cut => u64::try_from(magnitude).ok().and_then(|narrow| narrow.checked_mul(10_u64.pow(4 - cut))),
        };
        if let Some(filled) = filled {
            digits.push_narrow(filled);
        } else {
            let (rest, remainder) = div_small(magnitude, 10_u64.pow(cut));
            if cut > 0 {
                digits.push((remainder * 10_u64.pow(4 - cut)) as u16);
            }
            digits.push_wide(rest);
        }
        // Words before the point are what is not after it, and there may be fewer of all than decimals.
        digits.weight = (Digits::MOST - digits.first) as i32 - scale.div_ceil(4) as i32 - 1;
        while digits.first < digits.last && digits.at(digits.first) == 0 {
            digits.first += 1;
            digits.weight -= 1;
        }
        while digits.first < digits.last && digits.at(digits.last - 1) == 0 {
            digits.last -= 1;
        }
        if digits.first == digits.last {
            digits.weight = 0;
        }
        digits
    }

    #[inline(never)]
    fn push_wide(&mut self, mut rest: U256) {
        const FOUR_WORDS: u64 = 10_000_000_000_000_000;
        let narrow = loop {
            if let Ok(narrow) = u64::try_from(rest) {
                break narrow;
            }
            let (quotient, mut four) = div_small(rest, FOUR_WORDS);
            for _ in 0..4 {
                self.push((four % 10_000) as u16);
                four /= 10_000;
            }
            rest = quotient;
        };
        self.push_narrow(narrow);
    }

    #[inline]
    fn push_narrow(&mut self, mut rest: u64) {
        while rest > 0 {
            self.push((rest % 10_000) as u16);
            rest /= 10_000;
        }
    }

    fn push(&mut self, word: u16) {
        self.first -= 1;
        if let Some(place) = self.words.get_mut(self.first) {
            *place = word;
        }
    }

    fn at(&self, place: usize) -> u16 {
        self.words.get(place).copied().unwrap_or_default()
    }

    fn used(&self) -> &[u16] {
        self.words.get(self.first..self.last).unwrap_or_default()
    }

    /// How many decimals they have.
    fn decimals(&self) -> u32 {
        let Some(last) = self.used().last() else { return 0 };
        let words = (self.last - self.first) as i32 - 1 - self.weight;
        let zeros = [1000, 100, 10].iter().take_while(|unit| last % (10_000 / *unit) == 0).count();
        (words * 4 - zeros as i32).max(0).cast_unsigned()
    }

    fn header(&self, negative: bool, scale: u32) -> ([u16; 2], usize) {
        let negative = negative && !self.used().is_empty();
        if scale <= SHORT_SCALE_MAX && (-64..64).contains(&self.weight) {
            let sign = if negative { SHORT_NEGATIVE } else { 0 };
            ([SHORT | sign | (scale as u16) << 7 | (self.weight as u16 & 0x7f), 0], 1)
        } else {
            let sign = if negative { LONG_NEGATIVE } else { 0 };
            ([sign | scale as u16, self.weight as u16], 2)
        }
    }
}

/// Quotient and remainder; in 64 bits where they are enough, which is nearly always.
fn div_small(n: U256, divisor: u64) -> (U256, u64) {
    match u64::try_from(n) {
        Ok(n) => (U256::from(n / divisor), n % divisor),
        Err(_) => {
            let divisor = U256::from(divisor);
            ((n / divisor), (n % divisor).as_u64())
        }
    }
}
