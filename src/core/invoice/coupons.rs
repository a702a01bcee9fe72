//! Coupons: line coupons, then invoice coupons; in each level the most limited first.

use super::arithmetic::{add, percent_of};
use super::pool::{Pool, Taken};
use super::{Coupon, CouponUse, Discount, InvoiceError, Level};

pub(super) fn apply(coupons: &[Coupon], pool: &mut Pool<'_>) -> Result<Vec<CouponUse>, InvoiceError> {
    let mut ordered: Vec<&Coupon> = coupons.iter().collect();
    ordered.sort_by_key(|coupon| (coupon.level, coupon.scope.rank())); // stable: equals keep their order
    ordered.into_iter().map(|coupon| use_up(coupon, pool)).collect()
}

fn use_up(coupon: &Coupon, pool: &mut Pool<'_>) -> Result<CouponUse, InvoiceError> {
    let negative = match &coupon.discount {
        Discount::Fixed { left } => *left < 0,
        Discount::Percentage(percent) => percent.is_negative(),
    };
    if negative {
        return Err(InvoiceError::NegativeCoupon(coupon.key.clone()));
    }
    let covered = pool.covered(&coupon.scope);
    let together: Vec<&[usize]> = match coupon.level {
        Level::Line => covered.chunks(1).collect(),
        Level::Invoice => vec![&covered],
    };
    let mut all = Taken { base: 0, used: 0, shares: Vec::new() };
    for places in together {
        let taken = pool.take(places, |base| match &coupon.discount {
            Discount::Fixed { left } => Ok(left - all.used), // used is at most what is left
            Discount::Percentage(percent) => percent_of(base, percent),
        })?;
        all.base = add(all.base, taken.base)?;
        all.used = add(all.used, taken.used)?;
        all.shares.extend(taken.shares);
    }
    Ok(CouponUse {
        key: coupon.key.clone(),
        base: all.base,
        used: all.used,
        left: match coupon.discount {
            Discount::Fixed { left } => Some(left - all.used),
            Discount::Percentage(_) => None,
        },
        shares: all.shares,
    })
}
