//! Recurring grants as far as nobody has written them down: they count all the same.

use crate::core::calendar::{Cycle, Interval};
use crate::core::ledger::{Lot, Part, Recurring, Source, parts};
use crate::pg::error::{Fail, Outcome};
use crate::pg::spi::{self, See};

use super::account::Account;
use super::{stored, too_large};

/// More periods than this at once are a mistake: three centuries of days.
const MAX_OCCURRENCES: usize = 110_000;

/// A rule and the occurrences of it that have begun and are not in the ledger.
pub struct Due {
    pub rule: i64,
    pub occurrence: i64,
    pub lots: Vec<(Part, Lot)>,
}

impl Account {
    /// The occurrences of a wallet's recurring grants that are not in the ledger and have begun by the time of the purse,
    /// without those whose credit had all expired by `since`.
    pub fn due(&self, wallet: i64, since: i64) -> Outcome<Vec<Due>> {
        let place = self.purse.wallets.iter().position(|known| known.id == wallet).unwrap_or_default();
        let mut due = Vec::new();
        spi::run(
            "SELECT id, amount, kind, priority, interval_unit, interval_count, timezone, starts_at, ends_at, rollover_min, rollover_max, given \
               FROM meterflow.recurring_grants WHERE tenant_id = $1 AND wallet_id = $2 AND starts_at <= $3 ORDER BY id",
            &[self.tenant.as_str().into(), wallet.into(), spi::time(self.purse.as_of)],
            See::Statement,
            |row| {
                let rule = row.int8(0)?;
                let terms = Recurring {
                    amount: stored(row, 1)?,
                    rollover_min: stored(row, 9)?,
                    rollover_max: if row.is_null(10) { None } else { Some(stored(row, 10)?) },
                };
                let (promotional, priority) = (row.is(2, "promotional")?, row.int4(3)?);
                let broken = |why: String| Fail::corrupt(format!("the periods of recurring grant {rule}: {why}"));
                let interval =
                    Interval::parse(&row.text(4)?, row.int4(5)?).map_err(|error| broken(error.to_string()))?;
                let cycle = Cycle::at(interval, row.time(7)?, false, &row.text(6)?)
                    .map_err(|error| broken(error.to_string()))?;
                let (ends_at, given) = (row.time(8)?, row.int8(11)?);
                let period = |number: i64| cycle.period(number).map_err(|error| broken(error.to_string()));
                let mut number = given;
                loop {
                    let occurrence = period(number)?;
                    if occurrence.start > self.purse.as_of || occurrence.start >= ends_at {
                        break;
                    }
                    if due.len() >= MAX_OCCURRENCES {
                        return Err(broken(format!("more than {MAX_OCCURRENCES} have begun")));
                    }
                    let mut lots = Vec::new();
                    let parts = parts(&terms, number == 0).map_err(too_large)?;
                    for (index, part) in parts.iter().enumerate() {
                        let expires_at = match part.outlives {
                            None => i64::MAX,
                            Some(later) => period(occurrence.number.saturating_add(later))?.end,
                        };
                        lots.push((
                            part.clone(),
                            Lot {
                                source: Source::Coming { rule, occurrence: number, part: index as i16 },
                                wallet: place,
                                priority: priority.saturating_add(part.priority),
                                promotional,
                                effective_at: occurrence.start,
                                expires_at,
                                created_at: occurrence.start,
                                summed: false,
                                remaining: part.amount,
                            },
                        ));
                    }
                    if lots.iter().any(|(_, lot)| lot.expires_at > since) {
                        due.push(Due { rule, occurrence: number, lots });
                    }
                    // A zone may have passed over a number.
                    number = number.max(occurrence.number).saturating_add(1);
                }
                Ok(())
            },
        )?;
        Ok(due)
    }
}
