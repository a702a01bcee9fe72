//! What an invoice is made of, before anything is computed.

use super::Amount;

/// An invoice in one currency that has `digits` decimals. Coupons and credits in another currency, and those that have
/// expired or are used up, are not of this invoice: whoever makes the draft leaves them out.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Decimals of the currency: [`currency::digits`](crate::core::currency::digits).
    pub digits: u32,
    pub lines: Vec<Line>,
    /// In the order of their application, as far as they are equally limited: see [`Coupon`].
    pub coupons: Vec<Coupon>,
    /// Credit that was given away: it lowers the price, so it comes before tax. In the order of their use.
    pub promotional_credits: Vec<Credit>,
    /// The taxes that lines name.
    pub taxes: Vec<Tax>,
    /// The customer pays no tax: every tax is 0. A price that includes a tax stays what it is, and is all net.
    pub exempt: bool,
    /// Credit that is money (wallets that were paid for, credit notes, overpayments): it pays, so it comes after tax. In
    /// the order of their use.
    pub paid_credits: Vec<Credit>,
}

/// Something that is charged for.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name within the invoice.
    pub key: String,
    pub kind: LineKind,
    /// The plan and add-ons that it belongs to.
    pub plans: Vec<String>,
    pub meter: Option<String>,
    pub price: Option<String>,
    /// In major units, exact: what pricing and proration say.
    pub unrounded: Amount,
    /// Keys of [`Draft::taxes`], each once.
    pub taxes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineKind {
    /// What a meter measured.
    Usage,
    /// A recurring fee.
    Fee,
    OneOff,
    /// A correction of an earlier invoice, or what earlier invoices of the period have billed already (then negative).
    Adjustment,
}

/// Which lines a coupon or credit applies to: those that are in every list that isn't empty. All empty: all lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    pub lines: Vec<String>,
    pub prices: Vec<String>,
    pub meters: Vec<String>,
    pub plans: Vec<String>,
    pub kinds: Vec<LineKind>,
}

/// A discount that the customer is entitled to.
///
/// Line coupons come before invoice coupons. Within a level the most limited come first, so that a coupon that can be
/// used in one place only isn't wasted: limited to lines, to prices, to meters, to plans, to kinds, to nothing. Equally
/// limited ones keep their order. Each applies to what those before it left.
#[derive(Clone, Debug)]
pub struct Coupon {
    pub key: String,
    pub level: Level,
    pub scope: Scope,
    pub discount: Discount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Each line by itself: a percentage is rounded on every line, a fixed amount is used up line by line.
    Line,
    /// The lines together: the discount is rounded once and spread over them.
    Invoice,
}

#[derive(Clone, Debug)]
pub enum Discount {
    /// What is left of a fixed amount, in minor units.
    Fixed { left: i128 },
    /// Of what is left of the lines. More than 100 is as much as 100.
    Percentage(Amount),
}

/// Credit of the customer, in minor units; spread over the lines it applies to.
#[derive(Clone, Debug)]
pub struct Credit {
    pub key: String,
    pub left: i128,
    pub scope: Scope,
}

#[derive(Clone, Debug)]
pub struct Tax {
    pub key: String,
    pub percent: Amount,
    /// The lines' amounts include it: it is found in them, not added to them.
    pub inclusive: bool,
}

impl Scope {
    pub fn covers(&self, line: &Line) -> bool {
        let one_of =
            |list: &[String], key: Option<&String>| list.is_empty() || key.is_some_and(|key| list.contains(key));
        one_of(&self.lines, Some(&line.key))
            && one_of(&self.prices, line.price.as_ref())
            && one_of(&self.meters, line.meter.as_ref())
            && (self.plans.is_empty() || line.plans.iter().any(|plan| self.plans.contains(plan)))
            && (self.kinds.is_empty() || self.kinds.contains(&line.kind))
    }

    /// The lower, the more limited.
    pub(super) fn rank(&self) -> usize {
        let limits = [&self.lines, &self.prices, &self.meters, &self.plans].map(|list| !list.is_empty());
        let kinds = !self.kinds.is_empty();
        limits.into_iter().chain([kinds]).position(|limited| limited).unwrap_or(limits.len() + 1)
    }
}
