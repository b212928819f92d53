//! Values in slots, by small numbers: one type of number for each kind of value.

use slab::Slab;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Values by the number that each got. A number is used again once its value is gone, so that no
/// order may depend on numbers.
#[derive(Debug)]
pub struct Arena<I, T> {
    slots: Slab<T>,
    numbers: PhantomData<I>,
}

impl<I, T> Default for Arena<I, T> {
    fn default() -> Self {
        Self { slots: Slab::new(), numbers: PhantomData }
    }
}

impl<I: Number, T> Arena<I, T> {
    /// Keeps a value.
    pub fn insert(&mut self, value: T) -> I {
        I::from_slot(self.slots.insert(value))
    }

    /// Takes a value out, which must be there.
    pub fn remove(&mut self, at: I) -> T {
        self.slots.remove(at.slot())
    }

    /// A value, if it is there.
    pub fn get(&self, at: I) -> Option<&T> {
        self.slots.get(at.slot())
    }

    /// A value, if it is there, to change it.
    pub fn get_mut(&mut self, at: I) -> Option<&mut T> {
        self.slots.get_mut(at.slot())
    }

    /// All values.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.slots.iter().map(|(slot, value)| (I::from_slot(slot), value))
    }

    /// All values, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (I, &mut T)> {
        self.slots.iter_mut().map(|(slot, value)| (I::from_slot(slot), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

impl<I: Number, T> Index<I> for Arena<I, T> {
    type Output = T;

    fn index(&self, at: I) -> &T {
        &self.slots[at.slot()]
    }
}

impl<I: Number, T> IndexMut<I> for Arena<I, T> {
    fn index_mut(&mut self, at: I) -> &mut T {
        &mut self.slots[at.slot()]
    }
}

/// The number of a slot.
pub trait Number: Copy {
    /// The number of this slot.
    fn from_slot(slot: usize) -> Self;
    /// Its slot.
    fn slot(self) -> usize;
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(std::num::NonZeroU32);

        impl Number for $name {
            fn from_slot(slot: usize) -> Self {
                let number = u32::try_from(slot + 1).ok().and_then(std::num::NonZeroU32::new);
                Self(number.expect("fewer than 2^32 of a kind"))
            }

            fn slot(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    )*};
}

numbers! {
    /// A piece of work, from when it is ready until it has ended.
    ItemIx;
    /// A lane, project, user or build of the tree of shares.
    NodeIx;
    /// Work that asks for about the same.
    ClassIx;
    /// A worker.
    WorkerIx;
    /// Workers that run the same platforms.
    FleetIx;
    /// An input that somebody holds or needs.
    InputIx;
}
