//! Credit notes: what was invoiced is taken back, in part or as a whole.
//!
//! What a line's first x units of credit are worth is a function of the line and x alone: the parts of x that were
//! discount, promotional credit, inclusive tax and net, and the exclusive tax on what is left. A note is worth the
//! difference of that function at two places. So
//! - the notes of a line credited in full add up to the line exactly, a later note taking the rounding of the earlier;
//! - one note or several come to the same;
//! - no note takes back a negative part, because no part of the function ever falls as x grows.

use ethnum::I256;

use super::arithmetic::{add, scaled, subtract, sum};
use super::{InvoiceError, InvoiceLine, LineTax};

/// A line of the invoice, and what a note takes back of it.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub line: &'a InvoiceLine,
    /// What earlier notes credited of [`InvoiceLine::amount`].
    pub before: i128,
    /// What this note credits of it: 0, or of the line's sign.
    pub amount: i128,
}

/// All in minor units, and all what the customer gets back: positive on a note for lines that are positive.
#[derive(Clone, Debug, PartialEq)]
pub struct CreditNote {
    /// One for each item that has an amount.
    pub lines: Vec<NoteLine>,
    pub amount: i128,
    /// Of the amount, what had not been charged because of coupons.
    pub discount: i128,
    /// Of the amount, what had not been charged because of promotional credit.
    pub promotional_credit: i128,
    /// Net of all of these and of tax.
    pub taxable: i128,
    pub tax: i128,
    pub total: i128,
}

/// As the [`InvoiceLine`] it is of: `amount − discount − promotional_credit` is `taxable` and the inclusive taxes.
#[derive(Clone, Debug, PartialEq)]
pub struct NoteLine {
    pub key: String,
    pub amount: i128,
    pub discount: i128,
    pub promotional_credit: i128,
    pub taxable: i128,
    pub taxes: Vec<LineTax>,
    pub total: i128,
}

/// The note for these items, which must be all lines of the invoice (with an amount of 0 where nothing is credited): a
/// note is never worth more than what is left of the whole invoice, even where negative lines made that less than what
/// is left of one line.
pub fn credit_note(items: &[Item<'_>]) -> Result<CreditNote, InvoiceError> {
    let credited = items.iter().filter(|item| item.amount != 0);
    let note = total(credited.map(|item| note_line(item, item.amount)).collect::<Result<_, _>>()?)?;
    let left = creditable(items)?.total;
    if note.total < 0 {
        return Err(InvoiceError::RaisesInvoice { by: subtract(0, note.total)? });
    }
    if note.total > left.max(0) {
        return Err(InvoiceError::ExceedsInvoice { creditable: left.max(0) });
    }
    Ok(note)
}

/// The note for all that is left of the lines, whatever the items' amounts: the most that can be credited. Of an invoice
/// with a negative total it is negative, and can't be issued.
fn creditable(items: &[Item<'_>]) -> Result<CreditNote, InvoiceError> {
    let rest = items.iter().map(|item| {
        let rest = subtract(item.line.amount, item.before)?;
        note_line(item, rest)
    });
    total(rest.collect::<Result<_, _>>()?)
}

fn note_line(item: &Item<'_>, amount: i128) -> Result<NoteLine, InvoiceError> {
    let line = item.line;
    let within =
        |x: i128| if line.amount < 0 { (line.amount..=0).contains(&x) } else { (0..=line.amount).contains(&x) };
    let after = add(item.before, amount)?;
    let backwards = amount != 0 && amount.signum() != line.amount.signum();
    if !within(item.before) || !within(after) || backwards {
        let creditable = if within(item.before) { line.amount - item.before } else { 0 };
        return Err(InvoiceError::ExceedsLine { line: line.key.clone(), creditable });
    }
    let (before, after) = (Worth::of(line, item.before)?, Worth::of(line, after)?);
    let taxes = line.taxes.iter().zip(after.taxes.iter().zip(&before.taxes));
    let taxes = taxes.map(|(tax, (after, before))| LineTax { amount: after - before, ..tax.clone() }).collect();
    Ok(NoteLine {
        key: line.key.clone(),
        amount,
        discount: after.discount - before.discount,
        promotional_credit: after.promotional_credit - before.promotional_credit,
        taxable: after.taxable - before.taxable,
        taxes,
        total: after.total - before.total,
    })
}

fn total(lines: Vec<NoteLine>) -> Result<CreditNote, InvoiceError> {
    let all = |part: fn(&NoteLine) -> i128| sum(lines.iter().map(part));
    Ok(CreditNote {
        amount: all(|line| line.amount)?,
        discount: all(|line| line.discount)?,
        promotional_credit: all(|line| line.promotional_credit)?,
        taxable: all(|line| line.taxable)?,
        tax: sum(lines.iter().flat_map(|line| &line.taxes).map(|tax| tax.amount))?,
        total: all(|line| line.total)?,
        lines,
    })
}

/// What the first so many units of a line are worth.
struct Worth {
    discount: i128,
    promotional_credit: i128,
    taxable: i128,
    taxes: Vec<i128>,
    total: i128,
}

impl Worth {
    fn of(line: &InvoiceLine, units: i128) -> Result<Worth, InvoiceError> {
        let mut cut = Cut { whole: line.amount, part: units };
        let discount = cut.off(line.discount)?;
        let promotional_credit = cut.off(line.promotional_credit)?;
        let gross = cut;
        let mut taxes = Vec::with_capacity(line.taxes.len());
        for tax in &line.taxes {
            taxes.push(if tax.inclusive { cut.off(tax.amount)? } else { gross.share(tax.amount)? });
        }
        let total = add(cut.part, sum(taxes.iter().copied())?)?;
        Ok(Worth { discount, promotional_credit, taxable: cut.part, taxes, total })
    }
}

/// A part of a whole from which pieces are cut off one after the other. What is cut off grows with the part by one at
/// most, and so does what remains; of the whole, the piece is cut off as it is.
#[derive(Clone, Copy)]
struct Cut {
    whole: i128,
    part: i128,
}

impl Cut {
    /// `piece` · `part` / `whole`, rounded half away from zero.
    fn share(&self, piece: i128) -> Result<i128, InvoiceError> {
        if self.whole == 0 {
            return Ok(0);
        }
        let sign = I256::new(self.whole.signum());
        scaled(self.part, I256::new(piece) * sign, I256::new(self.whole).wrapping_abs())
    }

    fn off(&mut self, piece: i128) -> Result<i128, InvoiceError> {
        let share = self.share(piece)?;
        *self = Cut { whole: self.whole - piece, part: self.part - share };
        Ok(share)
    }
}
