//! The properties of an event, parsed once into a flat tape that every meter then reads.
//!
//! The tape borrows the text: a node is two spans and the index behind its last descendant. Its buffers are kept from
//! event to event, so reading an event allocates nothing.

pub mod canonical;
pub mod number;
mod path;
pub(super) mod scan;

pub use path::{DefinitionError, Path};

use scan::{Flaw, Scanner, Seen, Shape, Sink, Span};

use crate::core::event::Fault;

#[derive(Clone, Copy, Debug)]
struct Node {
    key: Span,
    text: Span,
    shape: Shape,
    /// Index behind the last descendant.
    end: u32,
}

/// The buffers behind a tape, to be kept and used again.
#[derive(Debug, Default)]
pub struct Scratch {
    nodes: Vec<Node>,
    unescaped: String,
}

impl Scratch {
    /// Parses any JSON value. Text that [`parse`](crate::core::event::parse) has accepted never fails here.
    pub fn read<'t>(&'t mut self, text: &'t str, max_depth: usize) -> Result<Tape<'t>, Fault> {
        self.nodes.clear();
        self.unescaped.clear();
        self.fill(text, max_depth).map_err(|flaw| Fault::of_text(text, flaw))?;
        Ok(Tape { text, nodes: &self.nodes, unescaped: &self.unescaped })
    }

    fn fill(&mut self, text: &str, max_depth: usize) -> Result<(), Flaw> {
        let mut scanner = Scanner::new(text, max_depth)?;
        scanner.value(Span::default(), &mut Recorder { text, scratch: self })?;
        scanner.finish()
    }
}

struct Recorder<'s, 't> {
    text: &'t str,
    scratch: &'s mut Scratch,
}

impl Recorder<'_, '_> {
    /// From here on `escaped` says where the span points: into the unescaped text.
    fn settle(&mut self, span: Span) -> Span {
        if !span.escaped {
            return span;
        }
        let unescaped = &mut self.scratch.unescaped;
        let from = unescaped.len() as u32;
        scan::unescape(span.of(self.text), unescaped);
        Span { from, to: unescaped.len() as u32, escaped: true }
    }
}

impl Sink for Recorder<'_, '_> {
    fn open(&mut self, key: Span, shape: Shape) -> usize {
        let node = Node { key: self.settle(key), text: Span::default(), shape, end: 0 };
        self.scratch.nodes.push(node);
        self.scratch.nodes.len() - 1
    }

    fn close(&mut self, handle: usize, span: Span) {
        let end = self.scratch.nodes.len() as u32;
        if let Some(node) = self.scratch.nodes.get_mut(handle) {
            (node.text, node.end) = (span, end);
        }
    }

    fn scalar(&mut self, key: Span, seen: Seen) {
        let (key, text) = (self.settle(key), self.settle(seen.span));
        let end = self.scratch.nodes.len() as u32 + 1;
        self.scratch.nodes.push(Node { key, text, shape: seen.shape, end });
    }
}

/// A parsed JSON text, in most places the properties of an event.
#[derive(Clone, Copy, Debug)]
pub struct Tape<'t> {
    text: &'t str,
    nodes: &'t [Node],
    unescaped: &'t str,
}

impl<'t> Tape<'t> {
    pub fn root(&self) -> Value<'t> {
        self.value(0)
    }

    /// The property at `path`, or nothing. Of duplicate keys the last one counts, as in jsonb.
    pub fn get(&self, path: &Path) -> Option<Value<'t>> {
        match self.root() {
            Value::Object(object) => path::find(object, path.as_str()),
            _ => None,
        }
    }

    fn text(&self, span: Span) -> &'t str {
        span.of(if span.escaped { self.unescaped } else { self.text })
    }

    fn value(&self, index: usize) -> Value<'t> {
        let Some(node) = self.nodes.get(index) else {
            return Value::Null;
        };
        match node.shape {
            Shape::Absent | Shape::Null => Value::Null,
            Shape::False => Value::Bool(false),
            Shape::True => Value::Bool(true),
            Shape::Number => Value::Number(self.text(node.text)),
            Shape::Text => Value::Text(self.text(node.text)),
            Shape::Array => Value::Array(Branch { tape: *self, index }),
            Shape::Object => Value::Object(Branch { tape: *self, index }),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Value<'t> {
    Null,
    Bool(bool),
    /// As it was written.
    Number(&'t str),
    Text(&'t str),
    Array(Branch<'t>),
    Object(Branch<'t>),
}

impl<'t> Value<'t> {
    /// How messages call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }
}

/// An array or an object on the tape.
#[derive(Clone, Copy, Debug)]
pub struct Branch<'t> {
    tape: Tape<'t>,
    index: usize,
}

impl<'t> Branch<'t> {
    /// Keys and values as written, duplicates included; the items of an array have empty keys.
    pub fn children(&self) -> impl Iterator<Item = (&'t str, Value<'t>)> + use<'t> {
        let tape = self.tape;
        self.keys().map(move |(key, index)| (key, tape.value(index)))
    }

    /// Keys as written, each with the index of its value.
    fn keys(&self) -> impl Iterator<Item = (&'t str, usize)> + use<'t> {
        let tape = self.tape;
        let end = tape.nodes.get(self.index).map_or(0, |node| node.end as usize);
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let index = next;
            let node = tape.nodes.get(index).filter(|_| index < end)?;
            next = node.end as usize;
            Some((tape.text(node.key), index))
        })
    }

    /// As it was written.
    pub fn as_text(&self) -> &'t str {
        self.tape.nodes.get(self.index).map_or("", |node| self.tape.text(node.text))
    }

    pub fn member(&self, key: &str) -> Option<Value<'t>> {
        self.keys().filter(|(name, _)| *name == key).last().map(|(_, index)| self.tape.value(index))
    }
}
