//! An invoice's explanation, as JSON for people and programs: the stages in their order. Numbers are strings in major
//! units: JSON's own would lose digits.

use ethnum::I256;
use serde_json::{Value, json};

use super::{CreditUse, Invoice, LineTax, Share};
use crate::core::pricing::Money;

impl Invoice {
    /// What was taken from what, and why it is due.
    pub fn explain(&self) -> Value {
        let money = |minor: i128| Money::new(I256::new(minor), self.digits).to_string();
        let shares = |shares: &[Share]| -> Vec<Value> {
            let share = |share: &Share| json!({ "line": self.lines[share.line].key, "amount": money(share.amount) });
            shares.iter().map(share).collect()
        };
        let credits = |uses: &[CreditUse]| -> Vec<Value> {
            let credit = |credit: &CreditUse| {
                json!({
                    "credit": credit.key,
                    "base": money(credit.base),
                    "used": money(credit.used),
                    "left": money(credit.left),
                    "lines": shares(&credit.shares),
                })
            };
            uses.iter().map(credit).collect()
        };
        let line_tax = |tax: &LineTax| {
            json!({
                "tax": tax.key,
                "percent": tax.percent.to_string(),
                "inclusive": tax.inclusive,
                "amount": money(tax.amount),
            })
        };
        let lines = self.lines.iter().map(|line| {
            json!({
                "line": line.key,
                "unrounded": line.unrounded.to_string(),
                "amount": money(line.amount),
                "discount": money(line.discount),
                "promotional_credit": money(line.promotional_credit),
                "taxable": money(line.taxable),
                "taxes": line.taxes.iter().map(line_tax).collect::<Vec<_>>(),
                "total": money(line.total),
                "paid_credit": money(line.paid_credit),
            })
        });
        let coupons = self.coupons.iter().map(|coupon| {
            json!({
                "coupon": coupon.key,
                "base": money(coupon.base),
                "used": money(coupon.used),
                "left": coupon.left.map(money),
                "lines": shares(&coupon.shares),
            })
        });
        let taxes = self.taxes.iter().map(|tax| {
            json!({
                "tax": tax.key,
                "percent": tax.percent.to_string(),
                "inclusive": tax.inclusive,
                "base": money(tax.base),
                "amount": money(tax.amount),
            })
        });
        json!({
            "rounding": "half away from zero, once a line and once a tax; shares by largest remainder",
            "order": ["lines", "coupons", "promotional_credits", "taxes", "paid_credits"],
            "lines": lines.collect::<Vec<_>>(),
            "coupons": coupons.collect::<Vec<_>>(),
            "promotional_credits": credits(&self.promotional_credits),
            "exempt": self.exempt,
            "taxes": taxes.collect::<Vec<_>>(),
            "paid_credits": credits(&self.paid_credits),
            "subtotal": money(self.subtotal),
            "discount": money(self.discount),
            "promotional_credit": money(self.promotional_credit),
            "taxable": money(self.taxable),
            "tax": money(self.tax),
            "total": money(self.total),
            "paid_credit": money(self.paid_credit),
            "amount_due": money(self.amount_due),
            "account_credit": money(self.account_credit),
        })
    }
}
