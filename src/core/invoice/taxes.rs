//! Taxes, on what discounts and promotional credit left of the lines.
//!
//! An exclusive tax is computed per rate over the invoice: the taxable amounts of its lines are added up, the tax is
//! rounded once, and spread over the lines in proportion. Rounding it on every line would add up to another sum than the
//! invoice shows.
//!
//! An inclusive tax is part of the amount: the line keeps its amount, and net and tax add up to it exactly. Lines with
//! the same inclusive rates r₁, r₂, … are taken together: of their gross amount G the part G·Σr/(100 + Σr) is tax,
//! rounded once; it is divided between the rates in proportion, and each rate's part is spread over the lines.
//!
//! On a line with both kinds, the exclusive taxes are computed on its net amount, without the inclusive ones: all its
//! taxes have one base.
//!
//! Negative lines lower the tax. Their part of it is spread over them alone, so that a line's tax never has another sign
//! than the line.

use std::collections::BTreeMap;

use ethnum::I256;

use super::arithmetic::{add, included_in, percent_of, round, spread, subtract, sum};
use super::{Amount, Draft, InvoiceError, InvoiceLine, LineTax, TaxTotal};

/// Fills in the lines' taxes, taxable amounts and totals. `open` is what is left of each line.
pub(super) fn apply(draft: &Draft, open: &[i128], lines: &mut [InvoiceLine]) -> Result<Vec<TaxTotal>, InvoiceError> {
    let mut places = BTreeMap::new();
    for (place, tax) in draft.taxes.iter().enumerate() {
        if tax.percent.is_negative() {
            return Err(InvoiceError::NegativeTax(tax.key.clone()));
        }
        if places.insert(tax.key.as_str(), place).is_some() {
            return Err(InvoiceError::RepeatedTax(tax.key.clone()));
        }
    }
    // By line, then by tax: the line's share in it, if it has it.
    let mut shares: Vec<BTreeMap<usize, i128>> = Vec::with_capacity(lines.len());
    for line in &draft.lines {
        let mut of_line = BTreeMap::new();
        for key in &line.taxes {
            let place = places.get(key.as_str()).ok_or_else(|| InvoiceError::UnknownTax(key.clone()))?;
            if of_line.insert(*place, 0).is_some() {
                return Err(InvoiceError::RepeatedTax(key.clone()));
            }
        }
        shares.push(of_line);
    }
    let mut net = open.to_vec();
    if !draft.exempt {
        inclusive(draft, &mut net, &mut shares)?;
        exclusive(draft, &net, &mut shares)?;
    }

    for ((line, net), shares) in lines.iter_mut().zip(&net).zip(&shares) {
        line.taxable = *net;
        line.total = add(*net, sum(shares.values().copied())?)?;
        let taxes = shares.iter().map(|(place, amount)| {
            let tax = &draft.taxes[*place];
            LineTax { key: tax.key.clone(), percent: tax.percent, inclusive: tax.inclusive, amount: *amount }
        });
        line.taxes = taxes.collect();
    }
    let totals = draft.taxes.iter().enumerate().map(|(place, tax)| {
        let with_it = || net.iter().zip(&shares).filter_map(|(net, shares)| Some((*net, *shares.get(&place)?)));
        Ok(TaxTotal {
            key: tax.key.clone(),
            percent: tax.percent,
            inclusive: tax.inclusive,
            base: sum(with_it().map(|(net, _)| net))?,
            amount: sum(with_it().map(|(_, amount)| amount))?,
        })
    });
    totals.collect()
}

/// Takes the inclusive taxes out of the gross amounts in `net`.
fn inclusive(draft: &Draft, net: &mut [i128], shares: &mut [BTreeMap<usize, i128>]) -> Result<(), InvoiceError> {
    let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (line, shares) in shares.iter().enumerate() {
        let rates: Vec<usize> = shares.keys().copied().filter(|place| draft.taxes[*place].inclusive).collect();
        if !rates.is_empty() {
            groups.entry(rates).or_default().push(line);
        }
    }
    for (rates, lines) in groups {
        let percents: Vec<Amount> = rates.iter().map(|place| draft.taxes[*place].percent).collect();
        let (weights, percent) = common_scale(&percents)?;
        let gross: Vec<i128> = lines.iter().map(|line| net[*line]).collect();
        for side in sides(&gross, |gross| included_in(gross, &percent))? {
            for (rate, tax) in rates.iter().zip(spread(side.tax, &weights)?) {
                // In proportion to what the rates before this one left: together they can't exceed the line.
                let left: Vec<i128> = side.lines.iter().map(|line| net[lines[*line]].abs()).collect();
                for (line, part) in side.lines.iter().zip(spread(tax, &left)?) {
                    let line = lines[*line];
                    net[line] -= part; // of the same sign, and no larger
                    shares[line].insert(*rate, part);
                }
            }
        }
    }
    Ok(())
}

fn exclusive(draft: &Draft, net: &[i128], shares: &mut [BTreeMap<usize, i128>]) -> Result<(), InvoiceError> {
    for (rate, tax) in draft.taxes.iter().enumerate().filter(|(_, tax)| !tax.inclusive) {
        let lines: Vec<usize> =
            shares.iter().enumerate().filter(|(_, shares)| shares.contains_key(&rate)).map(|(line, _)| line).collect();
        let base: Vec<i128> = lines.iter().map(|line| net[*line]).collect();
        for side in sides(&base, |base| percent_of(base, &tax.percent))? {
            let weights: Vec<i128> = side.lines.iter().map(|line| base[*line].abs()).collect();
            for (line, part) in side.lines.iter().zip(spread(side.tax, &weights)?) {
                shares[lines[*line]].insert(rate, part);
            }
        }
    }
    Ok(())
}

/// The lines on one side of zero, by their places, and the tax on them.
struct Side {
    lines: Vec<usize>,
    tax: i128,
}

/// The tax of all amounts together, rounded once, as a part of the positive ones and a part of the negative ones. The
/// second is what rounding left of it: at most 0, because the tax on less is not more.
fn sides(amounts: &[i128], tax: impl Fn(i128) -> Result<i128, InvoiceError>) -> Result<[Side; 2], InvoiceError> {
    let places = |wanted: i128| -> Vec<usize> {
        amounts.iter().enumerate().filter(|(_, amount)| amount.signum() == wanted).map(|(place, _)| place).collect()
    };
    let (above, below) = (places(1), places(-1));
    let all = tax(sum(amounts.iter().copied())?)?;
    let tax_above = if below.is_empty() { all } else { tax(sum(above.iter().map(|place| amounts[*place]))?)? };
    Ok([Side { lines: above, tax: tax_above }, Side { lines: below, tax: subtract(all, tax_above)? }])
}

/// The percentages as whole units of their smallest decimal, to divide by, and their sum.
fn common_scale(percents: &[Amount]) -> Result<(Vec<i128>, Amount), InvoiceError> {
    let scale = percents.iter().map(Amount::scale).max().unwrap_or(0);
    let units = percents.iter().map(|percent| round(percent, scale)).collect::<Result<Vec<_>, _>>()?;
    let all = Amount::new(I256::new(sum(units.iter().copied())?), scale);
    Ok((units, all))
}
