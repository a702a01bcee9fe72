//! Credit that pays for an invoice: what the payer has on its account, and its wallets in burn order; what each was given
//! for decides whether it comes before tax or after (`core::invoice`).

use std::collections::BTreeMap;

use crate::core::invoice::{self, CreditUse, Scope};
use crate::core::ledger::{Purse, Taken};
use crate::ledger::{self, Act, Journal};
use crate::pg::error::{Fail, Outcome};
use crate::pg::scan::{self, Is, Value};
use crate::pg::session;
use crate::pg::spi::{self, See};

use super::charges::{self, Line};
use super::invoice::{Bill, amount};
use super::tables;

/// The payer's credit in the currency of the invoice.
pub struct Credit {
    account: ledger::Account,
    taken: Vec<Taken>,
    /// Lots that pay as one, by the number in their credit's name.
    together: Vec<Vec<usize>>,
}

/// What an invoice used of one source, as `invoice_credits` says it.
pub struct Used {
    pub source: &'static str,
    pub id: i64,
    pub promotional: bool,
    pub minor: i128,
}

/// The names of credits within a draft.
const ACCOUNT: &str = "account";
const LOTS: &str = "lots";

impl Credit {
    /// Of the payer of a bill, in the statement's snapshot. What holds have set aside is not there for it.
    pub fn of(bill: &Bill<'_>, lines: &[Line]) -> Outcome<Credit> {
        let since = lines.iter().map(|line| time_of(line, bill.issued_at)).fold(bill.issued_at, i64::min);
        let mut account = ledger::load(bill.tenant, bill.payer, bill.currency, bill.issued_at, since)?;
        account.purse.settle().map_err(ledger::too_large)?;
        super::reserve(&mut account)?;
        account.set_aside()?;
        account.charged_since = since;
        Ok(Credit::with_held(account))
    }

    /// All of an account, of which holds have set nothing aside.
    pub fn with_held(account: ledger::Account) -> Credit {
        Credit { account, taken: Vec::new(), together: Vec::new() }
    }

    pub fn promotional(&mut self, bill: &Bill<'_>, lines: &[Line]) -> Outcome<Vec<invoice::Credit>> {
        self.lots(bill, lines, true)
    }

    /// What is on the payer's account comes first, oldest first.
    pub fn paid(&mut self, bill: &Bill<'_>, lines: &[Line]) -> Outcome<Vec<invoice::Credit>> {
        let mut credits = Vec::new();
        if lines.is_empty() {
            return Ok(credits);
        }
        let terms = [
            (0, Is::Equal, Value::Text(bill.tenant)),
            (1, Is::Equal, Value::Text(bill.payer)),
            (2, Is::Equal, Value::Text(bill.currency)),
        ];
        if scan::any(&tables::ACCOUNT_CREDITS, &terms)? {
            spi::run(
                "SELECT id, left_over::text FROM meterflow.open_account_credits($1, $2) ORDER BY created_at, id",
                &[bill.payer.into(), bill.currency.into()],
                See::Statement,
                |row| {
                    let left = amount(&row.text(1)?)?
                        .round(self.account.purse.digits)
                        .map_err(|error| Fail::corrupt(error.to_string()))?;
                    let key = format!("{ACCOUNT}:{}", row.int8(0)?);
                    credits.push(invoice::Credit { key, left: charges::minor(left)?, scope: Scope::default() });
                    Ok(())
                },
            )?;
        }
        credits.extend(self.lots(bill, lines, false)?);
        Ok(credits)
    }

    /// In burn order. Lots that pay for the same pay as one: how that is spread over the lines does not depend on how many
    /// lots it is in.
    fn lots(&mut self, bill: &Bill<'_>, lines: &[Line], promotional: bool) -> Outcome<Vec<invoice::Credit>> {
        let purse = &self.account.purse;
        let mut credits: Vec<invoice::Credit> = Vec::new();
        for (place, lot) in purse.lots.iter().enumerate().filter(|(_, lot)| lot.promotional == promotional) {
            let pays = |line: &Line| lot.pays(time_of(line, bill.issued_at), bill.issued_at);
            let left = purse.worth(lot).map_err(ledger::too_large)?;
            if left <= 0 || !lines.iter().any(pays) {
                continue;
            }
            let mut scope = purse.wallets[lot.wallet].scope.clone();
            if !lines.iter().all(pays) {
                let paid = lines.iter().enumerate().filter(|(_, line)| pays(line));
                scope.lines = paid.map(|(place, _)| place.to_string()).collect();
            }
            match credits.last_mut().zip(self.together.last_mut()) {
                Some((credit, lots)) if credit.scope == scope => {
                    credit.left += left;
                    lots.push(place);
                }
                _ => {
                    credits.push(invoice::Credit { key: format!("{LOTS}:{}", self.together.len()), left, scope });
                    self.together.push(vec![place]);
                }
            }
        }
        Ok(credits)
    }

    /// Takes out of the purse what the invoice uses of it.
    pub fn use_up(&mut self, invoice: &invoice::Invoice) -> Outcome<()> {
        for used in invoice.promotional_credits.iter().chain(&invoice.paid_credits).filter(|used| used.used > 0) {
            let (LOTS, number) = name(used)? else { continue };
            let lots = usize::try_from(number).ok().and_then(|number| self.together.get(number));
            let purse = &mut self.account.purse;
            let mut left = used.used;
            for place in lots.into_iter().flatten() {
                let part = purse.worth(&purse.lots[*place]).map_err(ledger::too_large)?.min(left);
                if part > 0 {
                    self.taken.push(purse.take(*place, part).map_err(ledger::too_large)?);
                    left -= part;
                }
            }
            if left > 0 {
                return Err(Fail::corrupt("an invoice used more credit than there is"));
            }
        }
        Ok(())
    }

    /// What the invoice used, of each wallet in one sum before tax and one after.
    pub fn used(&self, invoice: &invoice::Invoice) -> Outcome<Vec<Used>> {
        let mut used = Vec::new();
        for credit in invoice.paid_credits.iter().filter(|credit| credit.used > 0) {
            if let (ACCOUNT, id) = name(credit)? {
                used.push(Used { source: ACCOUNT, id, promotional: false, minor: credit.used });
            }
        }
        let purse: &Purse = &self.account.purse;
        let mut wallets: BTreeMap<(bool, usize), i128> = BTreeMap::new();
        for taken in &self.taken {
            let lot = &purse.lots[taken.lot];
            *wallets.entry((!lot.promotional, lot.wallet)).or_default() += taken.minor;
        }
        used.extend(wallets.into_iter().map(|((paid, wallet), minor)| Used {
            source: "wallet",
            id: purse.wallets[wallet].id,
            promotional: !paid,
            minor,
        }));
        Ok(used)
    }

    /// Writes into the ledger that the invoice has used it. The account is locked.
    pub fn pay(mut self, invoice_id: i64) -> Outcome<()> {
        if self.taken.is_empty() {
            return Ok(());
        }
        spi::in_new_snapshot(|| {
            let mut journal = Journal::new(&self.account.tenant, session::now());
            let act = Act { kind: "invoice", invoice: Some(invoice_id), ..Act::default() };
            let transaction = journal.act(&self.account, &act)?;
            for taken in &self.taken {
                let now = journal.now;
                journal.take(&mut self.account, transaction, taken, "invoices", now)?;
            }
            journal.write([&self.account])
        })
    }

    /// The account, and what was taken out of it.
    pub fn into_account(self) -> (ledger::Account, Vec<Taken>) {
        (self.account, self.taken)
    }
}

/// The time of the debt that a line is: of a period that has ended, its last moment.
pub fn time_of(line: &Line, now: i64) -> i64 {
    line.cell.map_or(now, |cell| now.min(cell.cycle_end - 1))
}

fn name(credit: &CreditUse) -> Outcome<(&str, i64)> {
    credit
        .key
        .split_once(':')
        .and_then(|(source, id)| Some((source, id.parse().ok()?)))
        .ok_or_else(|| Fail::corrupt(format!("a credit of no source: {}", credit.key)))
}
