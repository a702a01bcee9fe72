//! Smallest value.

use super::Quantity;
use super::extreme::{Extreme, Pick};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Least;

impl Pick for Least {
    fn pick(a: Quantity, b: Quantity) -> Quantity {
        a.min(b)
    }
}

pub type Min = Extreme<Least>;
