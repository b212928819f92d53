//! How long steps of a shape took, and what they used: what is expected of the next one.
//!
//! Means are exponentially weighted, with the mean deviation beside the mean as in Jacobson,
//! "Congestion avoidance and control", 1988 (and RFC 6298): what comes within mean and deviation
//! comes soon enough to wait for.

use proto::id::ShapeKey;
use proto::limit;
use proto::record::Cost;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands before the bytes of a history.
const VERSION: u8 = 1;

/// How much one run counts: a quarter, so that the last four or five are what matters.
const WEIGHT: u64 = 4;

/// How long something is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    /// The mean, in milliseconds.
    pub wall_ms: u64,
    /// The mean deviation from it, in milliseconds.
    pub deviation_ms: u64,
}

impl Expected {
    /// What is expected of a RUN that nobody has run before.
    pub const RUN: Self = Self { wall_ms: 10_000, deviation_ms: 5_000 };

    /// What is expected of a pull or a download that nobody has done before.
    pub const FETCH: Self = Self { wall_ms: 5_000, deviation_ms: 2_500 };

    /// By when it has ended, most of the time.
    pub fn most_ms(&self) -> u64 {
        self.wall_ms.saturating_add(self.deviation_ms)
    }
}

/// What is known of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Known {
    /// The mean of how long it took, in milliseconds.
    pub wall_ms: u64,
    /// The mean deviation from that.
    pub deviation_ms: u64,
    /// The mean of the processor time that it used, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory that it used at once, in bytes: what it used more counts at once, what it
    /// used less by and by.
    pub memory_peak_bytes: u64,
}

impl Known {
    fn first(cost: &Cost) -> Self {
        Self {
            wall_ms: cost.wall_ms,
            deviation_ms: cost.wall_ms / 2,
            cpu_ms: cost.cpu_ms,
            memory_peak_bytes: cost.memory_peak_bytes,
        }
    }

    fn learn(&mut self, cost: &Cost) {
        let off = self.wall_ms.abs_diff(cost.wall_ms);
        self.deviation_ms = towards(self.deviation_ms, off);
        self.wall_ms = towards(self.wall_ms, cost.wall_ms);
        self.cpu_ms = towards(self.cpu_ms, cost.cpu_ms);
        self.memory_peak_bytes = match cost.memory_peak_bytes {
            peak if peak > self.memory_peak_bytes => peak,
            peak => towards(self.memory_peak_bytes, peak),
        };
    }

    /// How long the next one is expected to take.
    pub fn expected(&self) -> Expected {
        Expected { wall_ms: self.wall_ms, deviation_ms: self.deviation_ms }
    }
}

/// The mean after one more value.
fn towards(mean: u64, value: u64) -> u64 {
    match mean <= value {
        true => mean + (value - mean).div_ceil(WEIGHT),
        false => mean - (mean - value).div_ceil(WEIGHT),
    }
}

/// Why bytes are no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Another version wrote them.
    #[error("The history of steps was written by another version")]
    Version,
    /// They are damaged.
    #[error("The history of steps is damaged: {0}")]
    Damaged(String),
    /// There are more shapes than are kept.
    #[error("The history of steps has {0} shapes; at most {max} are kept", max = limit::SHAPES_MAX)]
    TooLong(usize),
}

/// What is known of the shapes that were run, the last [`limit::SHAPES_MAX`] of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    known: BTreeMap<ShapeKey, (u64, Known)>,
    /// The shapes in the order in which they were used last.
    used: BTreeMap<u64, ShapeKey>,
    last: u64,
    learnt: u64,
}

/// A history to be written down: the shapes in the order in which they were used last.
#[derive(Debug)]
pub struct HistoryRows(Vec<(ShapeKey, Known)>);

impl HistoryRows {
    /// As bytes, for [`History::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let encoded = rkyv::to_bytes::<RkyvError>(&self.0);
        let encoded = encoded.expect("a value that has neither maps nor cycles can be encoded");
        [&[VERSION], encoded.as_slice()].concat()
    }
}

impl History {
    /// What is known of a shape.
    pub fn get(&self, shape: &ShapeKey) -> Option<Known> {
        self.known.get(shape).map(|(_, known)| *known)
    }

    /// What is known of a shape, which counts as used.
    pub fn look_up(&mut self, shape: &ShapeKey) -> Option<Known> {
        let (used, known) = self.known.get_mut(shape)?;
        self.used.remove(used);
        self.last += 1;
        *used = self.last;
        self.used.insert(self.last, *shape);
        Some(*known)
    }

    /// A step of the shape has run to its end. What was not used for the longest time is forgotten
    /// when there are too many.
    pub fn learn(&mut self, shape: ShapeKey, cost: &Cost) {
        self.learnt += 1;
        if self.look_up(&shape).is_some() {
            self.known.entry(shape).and_modify(|(_, known)| known.learn(cost));
            return;
        }
        if self.known.len() >= limit::SHAPES_MAX
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.known.remove(&oldest);
        }
        self.insert(shape, Known::first(cost));
    }

    fn insert(&mut self, shape: ShapeKey, known: Known) {
        self.last += 1;
        if let Some((used, _)) = self.known.insert(shape, (self.last, known)) {
            self.used.remove(&used);
        }
        self.used.insert(self.last, shape);
    }

    /// How many shapes are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How often something was learnt, since there is this history or it was read.
    pub fn learnt(&self) -> u64 {
        self.learnt
    }

    /// All of it.
    pub fn rows(&self) -> HistoryRows {
        HistoryRows(self.used.values().map(|shape| (*shape, self.known[shape].1)).collect())
    }

    /// Reads what [`HistoryRows::to_bytes`] wrote, checking it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HistoryError> {
        let [VERSION, encoded @ ..] = bytes else { return Err(HistoryError::Version) };
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(encoded);
        let rows = rkyv::from_bytes::<Vec<(ShapeKey, Known)>, RkyvError>(&aligned)
            .map_err(|e| HistoryError::Damaged(e.to_string()))?;
        if rows.len() > limit::SHAPES_MAX {
            return Err(HistoryError::TooLong(rows.len()));
        }
        let mut history = Self::default();
        rows.into_iter().for_each(|(shape, known)| history.insert(shape, known));
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(n: u32) -> ShapeKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        ShapeKey::from_bytes(bytes)
    }

    fn cost(wall_ms: u64, memory_peak_bytes: u64) -> Cost {
        Cost { wall_ms, cpu_ms: wall_ms * 2, memory_peak_bytes }
    }

    #[test]
    fn what_was_measured_last_counts_most() {
        let mut history = History::default();
        assert_eq!(history.look_up(&shape(1)), None);
        history.learn(shape(1), &cost(1000, 100));
        let known = history.look_up(&shape(1)).expect("just learnt");
        assert_eq!(history.learnt(), 1, "a look teaches nothing");
        assert_eq!((known.wall_ms, known.deviation_ms), (1000, 500));
        history.learn(shape(1), &cost(2000, 300));
        let known = history.look_up(&shape(1)).expect("learnt");
        assert_eq!((known.wall_ms, known.cpu_ms, known.memory_peak_bytes), (1250, 2500, 300));
        assert_eq!(known.deviation_ms, 625);
        (0..40).for_each(|_| history.learn(shape(1), &cost(2000, 100)));
        let known = history.look_up(&shape(1)).expect("learnt");
        assert_eq!((known.wall_ms, known.deviation_ms, known.memory_peak_bytes), (2000, 0, 100));
    }

    #[test]
    fn what_was_not_used_is_forgotten_first() {
        let mut history = History::default();
        for n in 0..limit::SHAPES_MAX as u32 {
            history.learn(shape(n), &cost(1, 1));
        }
        assert!(history.look_up(&shape(0)).is_some());
        history.learn(shape(u32::MAX), &cost(1, 1));
        assert_eq!(history.len(), limit::SHAPES_MAX);
        assert!(history.look_up(&shape(0)).is_some(), "it was looked up");
        assert!(history.look_up(&shape(1)).is_none(), "it was not");
    }

    #[test]
    fn bytes_are_checked() {
        assert_eq!(History::from_bytes(&[]), Err(HistoryError::Version));
        assert_eq!(History::from_bytes(&[9, 1, 2]), Err(HistoryError::Version));
        let mut history = History::default();
        history.learn(shape(1), &cost(1, 1));
        let bytes = history.rows().to_bytes();
        let cut = History::from_bytes(&bytes[..bytes.len() - 1]);
        assert!(matches!(cut, Err(HistoryError::Damaged(_))), "{cut:?}");
    }

    proptest! {
        #[test]
        fn it_reads_what_it_writes(runs in prop::collection::vec((0u32..20, any::<u32>()), 0..60)) {
            let mut history = History::default();
            for (n, wall) in runs {
                history.learn(shape(n), &cost(u64::from(wall), 7));
            }
            let again = History::from_bytes(&history.rows().to_bytes()).expect("its own bytes");
            prop_assert_eq!(again.rows().to_bytes(), history.rows().to_bytes());
            prop_assert_eq!(again.len(), history.len());
            prop_assert_eq!(again.learnt(), 0);
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes: Vec<u8> = [VERSION].into_iter().chain(bytes).collect();
            let _ = History::from_bytes(&bytes);
        }
    }
}
