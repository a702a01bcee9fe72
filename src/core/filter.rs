//! Which events a meter counts: a small language in JSON.
//!
//! ```json
//! {"model": "gpt-4", "region": ["eu", "us"], "bytes": {"gte": 100, "lt": 1000}, "or": [{"a": 1}, {"b": null}]}
//! ```
//!
//! All members must hold. A scalar means equal, a list any of, an object one or more operators; `and` and `or` take
//! lists of filters. `null` stands for a property that is absent or null, and `exists` asks for one that is neither.
//! `ne` and `nin` are the exact opposites of `eq` and `in`, so an absent property passes them.
//!
//! Numbers are compared by value. A text that is a number, in the event or in the filter, is compared as a number when
//! the other side is a number; two texts are compared byte by byte. Anything else is not equal and not ordered:
//! `{"n": {"lt": 5}}` does not hold for true.

use std::cmp::Ordering;

use super::properties::number::Number;
use super::properties::{DefinitionError, Path, Scratch, Tape, Value};

/// Deeper than any hand would nest `and` and `or`.
const MAX_DEPTH: usize = 32;

const OPERATORS: &str = "eq, ne, in, nin, lt, lte, gt, gte or exists";

#[derive(Clone, Debug)]
pub struct Filter {
    root: Test,
}

#[derive(Clone, Debug)]
enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Property(Path, Check),
}

#[derive(Clone, Debug)]
enum Check {
    In(Vec<Operand>),
    NotIn(Vec<Operand>),
    /// Holds if the property compares to the operand as one of the two.
    Order(Operand, [Ordering; 2]),
    Exists(bool),
}

#[derive(Clone, Debug)]
enum Operand {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
}

impl Filter {
    /// The filter that lets everything pass.
    pub fn all() -> Filter {
        Filter { root: Test::All(Vec::new()) }
    }

    pub fn compile(text: &str) -> Result<Filter, DefinitionError> {
        let mut scratch = Scratch::default();
        let tape = scratch.read(text, MAX_DEPTH).map_err(|fault| DefinitionError::new("filters", fault.message))?;
        compile_object(tape.root(), "filters").map(|root| Filter { root })
    }

    pub fn matches(&self, tape: &Tape<'_>) -> bool {
        self.root.holds(&|path| tape.get(path))
    }

    /// The properties it looks at, each once.
    pub fn references(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.root.collect(&mut paths);
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Answers from a rollup's group instead of an event: `values` are the JSON texts of the dimensions, nothing where
    /// a dimension is absent. None if the filter looks at anything but the dimensions.
    pub fn matches_group(&self, dimensions: &[Path], values: &[Option<&str>]) -> Option<bool> {
        if !self.root.looks_only_at(dimensions) {
            return None;
        }
        let mut scratches: Vec<Scratch> = values.iter().map(|_| Scratch::default()).collect();
        let mut tapes = Vec::with_capacity(values.len());
        for (value, scratch) in values.iter().zip(&mut scratches) {
            tapes.push(scratch.read(value.unwrap_or("null"), MAX_DEPTH).ok()?);
        }
        Some(self.root.holds(&|path| {
            let position = dimensions.iter().position(|dimension| dimension == path)?;
            tapes.get(position).map(Tape::root)
        }))
    }
}

impl Test {
    fn holds<'t>(&self, get: &impl Fn(&Path) -> Option<Value<'t>>) -> bool {
        match self {
            Test::All(tests) => tests.iter().all(|test| test.holds(get)),
            Test::Any(tests) => tests.iter().any(|test| test.holds(get)),
            Test::Property(path, check) => check.holds(get(path).unwrap_or(Value::Null)),
        }
    }

    fn looks_only_at(&self, dimensions: &[Path]) -> bool {
        match self {
            Test::All(tests) | Test::Any(tests) => tests.iter().all(|test| test.looks_only_at(dimensions)),
            Test::Property(path, _) => dimensions.contains(path),
        }
    }

    fn collect(&self, paths: &mut Vec<Path>) {
        match self {
            Test::All(tests) | Test::Any(tests) => tests.iter().for_each(|test| test.collect(paths)),
            Test::Property(path, _) => paths.push(path.clone()),
        }
    }
}

impl Check {
    fn holds(&self, value: Value<'_>) -> bool {
        match self {
            Check::In(operands) => operands.iter().any(|operand| operand.equals(value)),
            Check::NotIn(operands) => !operands.iter().any(|operand| operand.equals(value)),
            Check::Order(operand, wanted) => operand.compare(value).is_some_and(|found| wanted.contains(&found)),
            Check::Exists(wanted) => *wanted != matches!(value, Value::Null),
        }
    }
}

impl Operand {
    fn equals(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Operand::Null, Value::Null) => true,
            (Operand::Bool(operand), Value::Bool(value)) => *operand == value,
            (Operand::Text(operand), Value::Text(value)) => operand == value,
            _ => self.compare(value) == Some(Ordering::Equal),
        }
    }

    /// How the property compares to the operand; None if they can't be compared.
    fn compare(&self, value: Value<'_>) -> Option<Ordering> {
        match (self, value) {
            (Operand::Text(operand), Value::Text(value)) => Some(value.as_bytes().cmp(operand.as_bytes())),
            (Operand::Number(operand) | Operand::Text(operand), Value::Number(value))
            | (Operand::Number(operand), Value::Text(value)) => {
                Some(Number::parse(value)?.cmp(&Number::parse(operand)?))
            }
            _ => None,
        }
    }
}

fn compile_object(value: Value<'_>, at: &str) -> Result<Test, DefinitionError> {
    let Value::Object(object) = value else {
        let message = format!("must be a JSON object such as {{\"region\": [\"eu\", \"us\"]}}, not {}", value.kind());
        return Err(DefinitionError::new(at, message));
    };
    let mut tests = Vec::new();
    for (key, value) in object.children() {
        let at = format!("{at}.{key}");
        tests.push(match key {
            "and" => Test::All(compile_list(value, &at)?),
            "or" => Test::Any(compile_list(value, &at)?),
            _ => {
                let path = Path::parse(key).map_err(|error| DefinitionError::new(&at, error.message))?;
                compile_property(path, value, &at)?
            }
        });
    }
    Ok(Test::All(tests))
}

fn compile_list(value: Value<'_>, at: &str) -> Result<Vec<Test>, DefinitionError> {
    let Value::Array(items) = value else {
        return Err(DefinitionError::new(at, format!("must be a list of filters, not {}", value.kind())));
    };
    let tests: Vec<Test> = items
        .children()
        .enumerate()
        .map(|(index, (_, item))| compile_object(item, &format!("{at}[{index}]")))
        .collect::<Result<_, _>>()?;
    if tests.is_empty() {
        return Err(DefinitionError::new(at, "is an empty list; write at least one filter or leave it out"));
    }
    Ok(tests)
}

fn compile_property(path: Path, value: Value<'_>, at: &str) -> Result<Test, DefinitionError> {
    let Value::Object(operators) = value else {
        let operands = if let Value::Array(_) = value { operands(value, at)? } else { vec![operand(value, at)?] };
        return Ok(Test::Property(path, Check::In(operands)));
    };
    let mut tests = Vec::new();
    for (operator, value) in operators.children() {
        let at = format!("{at}.{operator}");
        let order = |wanted| ordered(value, &at).map(|operand| Check::Order(operand, wanted));
        let check = match operator {
            "eq" => Check::In(vec![operand(value, &at)?]),
            "ne" => Check::NotIn(vec![operand(value, &at)?]),
            "in" => Check::In(operands(value, &at)?),
            "nin" => Check::NotIn(operands(value, &at)?),
            "lt" => order([Ordering::Less; 2])?,
            "lte" => order([Ordering::Less, Ordering::Equal])?,
            "gt" => order([Ordering::Greater; 2])?,
            "gte" => order([Ordering::Greater, Ordering::Equal])?,
            "exists" => match value {
                Value::Bool(wanted) => Check::Exists(wanted),
                _ => return Err(DefinitionError::new(at, format!("must be true or false, not {}", value.kind()))),
            },
            _ => {
                let message = format!("is no operator; write {OPERATORS}, and a nested property as \"a.b\"");
                return Err(DefinitionError::new(at, message));
            }
        };
        tests.push(Test::Property(path.clone(), check));
    }
    if tests.is_empty() {
        return Err(DefinitionError::new(at, format!("has no operator; write {OPERATORS}")));
    }
    Ok(Test::All(tests))
}

fn operands(value: Value<'_>, at: &str) -> Result<Vec<Operand>, DefinitionError> {
    let Value::Array(items) = value else {
        return Err(DefinitionError::new(at, format!("must be a list of values, not {}", value.kind())));
    };
    let operands: Vec<Operand> = items
        .children()
        .enumerate()
        .map(|(index, (_, item))| operand(item, &format!("{at}[{index}]")))
        .collect::<Result<_, _>>()?;
    if operands.is_empty() {
        return Err(DefinitionError::new(at, "is an empty list; write at least one value or leave it out"));
    }
    Ok(operands)
}

fn operand(value: Value<'_>, at: &str) -> Result<Operand, DefinitionError> {
    Ok(match value {
        Value::Null => Operand::Null,
        Value::Bool(value) => Operand::Bool(value),
        Value::Number(text) => Operand::Number(text.to_owned()),
        Value::Text(text) => Operand::Text(text.to_owned()),
        Value::Array(_) | Value::Object(_) => {
            return Err(DefinitionError::new(
                at,
                format!("must be a text, a number, true, false or null, not {}", value.kind()),
            ));
        }
    })
}

fn ordered(value: Value<'_>, at: &str) -> Result<Operand, DefinitionError> {
    match operand(value, at)? {
        operand @ (Operand::Number(_) | Operand::Text(_)) => Ok(operand),
        _ => Err(DefinitionError::new(at, format!("must be a number or a text, not {}", value.kind()))),
    }
}
