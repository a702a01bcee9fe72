//! Sets of time: sorted, disjoint, non-empty half-open ranges of Unix microseconds.

/// Ascending, disjoint, none empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(i64, i64)>);

impl Ranges {
    /// One range; nothing if it is empty.
    pub fn of(start: i64, end: i64) -> Ranges {
        Ranges(if start < end { vec![(start, end)] } else { Vec::new() })
    }

    /// The union of ranges in any order.
    pub fn union(mut ranges: Vec<(i64, i64)>) -> Ranges {
        ranges.retain(|&(start, end)| start < end);
        ranges.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        Ranges(joined)
    }

    pub fn intersect(&self, other: &Ranges) -> Ranges {
        let (mut i, mut j) = (0, 0);
        let mut common = Vec::new();
        while let (Some(&a), Some(&b)) = (self.0.get(i), other.0.get(j)) {
            let (start, end) = (a.0.max(b.0), a.1.min(b.1));
            if start < end {
                common.push((start, end));
            }
            if a.1 <= b.1 { i += 1 } else { j += 1 }
        }
        Ranges(common)
    }

    pub fn subtract(&self, other: &Ranges) -> Ranges {
        let mut left = Vec::new();
        for &(start, end) in &self.0 {
            let mut rest = start;
            for &(from, to) in other.0.iter().filter(|&&(from, to)| from < end && to > start) {
                if rest < from {
                    left.push((rest, from));
                }
                rest = rest.max(to);
            }
            if rest < end {
                left.push((rest, end));
            }
        }
        Ranges(left)
    }

    pub fn contains(&self, at: i64) -> bool {
        self.0.iter().any(|&(start, end)| (start..end).contains(&at))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_slice(&self) -> &[(i64, i64)] {
        &self.0
    }

    /// From the start of the first to the end of the last.
    pub fn span(&self) -> Option<(i64, i64)> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }
}
