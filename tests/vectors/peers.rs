//! What the tests of other systems expect, against what we say: the cases of ../shared/vectors, and the tables beside this
//! file that list where we answer otherwise and why. Each case agrees or has one row, and each row is of a case that does
//! differ and says what both say: a table can't rot. How cases are translated is said by the tests that do it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The cases of a file of the vectors; none where the project stands without them, which is said.
pub fn cases(file: &str) -> Option<Vec<Value>> {
    let file = project().join("../shared/vectors").join(file);
    let Ok(text) = std::fs::read_to_string(&file) else {
        // Not captured as print! is: a skipped test must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED: the cases of peers, for there is no {}", file.display());
        return None;
    };
    Some(serde_json::from_str(&text).expect("the vectors are JSON"))
}

/// A row of a table: the case (or several, by a pattern that ends with *), what they say, what we say, and why.
#[derive(Debug)]
struct Row {
    case: String,
    theirs: String,
    ours: String,
    why: String,
}

impl Row {
    fn read(line: &str) -> Row {
        let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect();
        let [case, theirs, ours, why] = cells.try_into().unwrap_or_else(|_| panic!("four cells: {line}"));
        Row { case: case.trim_matches('`').to_string(), theirs, ours, why }
    }

    fn covers(&self, id: &str) -> bool {
        self.case.strip_suffix('*').map_or(self.case == id, |start| id.starts_with(start))
    }

    /// A pattern's cases differ in what they say; what we say is one thing.
    fn says(&self, theirs: &str, ours: &str) -> bool {
        self.ours == ours && (self.case.ends_with('*') || self.theirs == theirs)
    }
}

/// Cases as they are compared with a table.
pub struct Comparison {
    table: PathBuf,
    rows: Vec<Row>,
    used: BTreeSet<usize>,
    cases: usize,
    agreed: usize,
    wrong: Vec<String>,
}

impl Comparison {
    /// By a table beside this file.
    pub fn by(table: &str) -> Comparison {
        let table = project().join("tests/vectors").join(table);
        let text = std::fs::read_to_string(&table).unwrap_or_else(|error| panic!("{}: {error}", table.display()));
        let rows = text.lines().filter(|line| line.starts_with("| `")).map(Row::read).collect();
        Comparison { table, rows, used: BTreeSet::new(), cases: 0, agreed: 0, wrong: Vec::new() }
    }

    /// Without the rows of cases that another test compares.
    pub fn without(mut self, another: impl Fn(&str) -> bool) -> Comparison {
        self.rows.retain(|row| !another(&row.case));
        self
    }

    /// A case in which they and we say this; `agrees` is whether that is the same.
    pub fn case(&mut self, id: &str, agrees: bool, theirs: &dyn Display, ours: &dyn Display) {
        let (theirs, ours) = (theirs.to_string(), ours.to_string());
        let rows: Vec<usize> = (0..self.rows.len()).filter(|&row| self.rows[row].covers(id)).collect();
        self.used.extend(&rows);
        self.cases += 1;
        match (agrees, &rows[..]) {
            (true, []) => self.agreed += 1,
            (true, _) => self.wrong.push(format!("{id} is listed, but agrees: {ours}")),
            (false, []) => self.wrong.push(format!("| `{id}` | {theirs} | {ours} | |")),
            (false, &[row]) if self.rows[row].says(&theirs, &ours) => {}
            (false, &[row]) => {
                self.wrong.push(format!("{id}: the table says {:?}, they {theirs} and we {ours}", self.rows[row]));
            }
            (false, rows) => self.wrong.push(format!("{id} is listed {} times", rows.len())),
        }
    }

    /// Says how many agree; fails where one differs that is not listed, or a row is not so.
    pub fn finish(mut self, what: &str) {
        for (i, row) in self.rows.iter().enumerate().filter(|(i, row)| !self.used.contains(i) || row.why.is_empty()) {
            self.wrong.push(format!("row {} is of no case, or has no reason: {row:?}", i + 1));
        }
        let (cases, agreed) = (self.cases, self.agreed);
        let _ = writeln!(std::io::stderr(), "{cases} {what} of peers: {agreed} agree, {} are listed", cases - agreed);
        assert!(self.wrong.is_empty(), "{}:\n{}", self.table.display(), self.wrong.join("\n"));
        assert!(agreed > 0, "{}: no case was compared", self.table.display());
    }
}

/// An answer as named values, theirs and ours alike.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(pub BTreeMap<String, String>);

impl Facts {
    /// All that a value says; `from.w1` is the `w1` in `from`. Texts as `text` writes those of this name.
    pub fn of(value: &Value, text: &mut dyn FnMut(&str, &str) -> String) -> Facts {
        let mut facts = Facts::default();
        facts.gather("", value, text);
        facts
    }

    fn gather(&mut self, name: &str, value: &Value, text: &mut dyn FnMut(&str, &str) -> String) {
        let inner = |key: &str| if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| self.gather(&inner(key), value, text));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, value)| self.gather(&inner(&i.to_string()), value, text));
            }
            Value::String(said) => self.add(name, text(name, said)),
            value => self.add(name, value),
        }
    }

    pub fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.0.insert(name.into(), value.to_string());
    }

    /// Only what the other speaks of.
    pub fn asked_by(mut self, other: &Facts) -> Facts {
        self.0.retain(|name, _| other.0.contains_key(name));
        self
    }

    /// What is not the same in these and those, of each.
    pub fn differing(&self, those: &Facts) -> (Facts, Facts) {
        let (mut here, mut there) = (Facts::default(), Facts::default());
        let names: BTreeSet<&String> = self.0.keys().chain(those.0.keys()).collect();
        for name in names.into_iter().filter(|name| self.0.get(*name) != those.0.get(*name)) {
            let said = |facts: &Facts| facts.0.get(name).cloned().unwrap_or_else(|| "nothing".to_string());
            here.add(name, said(self));
            there.add(name, said(those));
        }
        (here, there)
    }
}

impl Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        f.write_str(&facts.join("; "))
    }
}
