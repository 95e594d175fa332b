//! Arenas of records named by index and generation.
//!
//! Freeing a slot bumps its generation, so a name that outlived its record finds nothing instead of
//! a stranger. Used for waiters and for contexts.
//!
//! # Invariants
//!
//! 1. A slot is used or in the free list, never both.
//! 2. Generations start at 1: the default name never names anything.
//!
//! Kernel counterpart: pointers that are valid because somebody holds a reference.

use crate::host::Storage;
use crate::tree::Full;

pub(crate) const NIL: u32 = u32::MAX;

/// An index and the generation it was given out with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SlotId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Names a sleeping thread.
///
/// Example: [`crate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WaiterId(pub(crate) SlotId);

impl WaiterId {
    /// Position in the embedder's table of park words: below the capacity for waiters.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0.index as usize
    }

    /// The name as a number, for an embedder that keeps it in an atomic; never 0.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.0.generation as u64) << 32) | self.0.index as u64
    }

    /// The name that [`to_bits`](Self::to_bits) encoded. Any other number names nobody, or a sleeper
    /// that had this name: a name is not a key to anything.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "two halves of the number")]
        Self(SlotId { index: bits as u32, generation: (bits >> 32) as u32 })
    }
}

/// Neighbours in a queue, by slot index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) previous: u32,
    pub(crate) next: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { previous: NIL, next: NIL }
    }
}

/// One record, as it lies in the embedder's storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<T> {
    generation: u32,
    next_free: u32,
    used: bool,
    value: T,
}

impl<T: Default> Default for Slot<T> {
    fn default() -> Self {
        Self { generation: 1, next_free: NIL, used: false, value: T::default() }
    }
}

pub(crate) struct Slots<T, S> {
    storage: S,
    free: u32,
    used: usize,
    record: core::marker::PhantomData<T>,
}

impl<T: Copy + Default, S: Storage<Slot<T>>> Slots<T, S> {
    pub(crate) fn new(storage: S) -> Self {
        Self { storage, free: NIL, used: 0, record: core::marker::PhantomData }
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Every slot that was ever used has an index below this.
    pub(crate) fn ever_used(&self) -> u32 {
        u32::try_from(self.storage.as_slice().len()).unwrap_or(NIL)
    }

    pub(crate) fn add(&mut self, value: T) -> Result<SlotId, Full> {
        let index = if self.free == NIL {
            let index = u32::try_from(self.storage.as_slice().len()).map_err(|_| Full)?;
            self.storage.push(Slot::default()).map_err(|_| Full)?;
            index
        } else {
            self.free
        };
        let slot = self.slot_mut(index).ok_or(Full)?;
        let next_free = core::mem::replace(&mut slot.next_free, NIL);
        slot.used = true;
        slot.value = value;
        let generation = slot.generation;
        self.free = next_free;
        self.used = self.used.saturating_add(1);
        Ok(SlotId { index, generation })
    }

    pub(crate) fn get(&self, id: SlotId) -> Option<&T> {
        let slot = self.storage.as_slice().get(id.index as usize)?;
        (slot.used && slot.generation == id.generation).then_some(&slot.value)
    }

    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let slot = self.slot_mut(id.index)?;
        (slot.used && slot.generation == id.generation).then_some(&mut slot.value)
    }

    /// The full name of the record in slot `index`.
    pub(crate) fn id_at(&self, index: u32) -> Option<SlotId> {
        let slot = self.storage.as_slice().get(index as usize)?;
        slot.used.then_some(SlotId { index, generation: slot.generation })
    }

    pub(crate) fn remove(&mut self, id: SlotId) -> Option<T> {
        let free = self.free;
        let slot = self.slot_mut(id.index)?;
        if !slot.used || slot.generation != id.generation {
            return None;
        }
        slot.used = false;
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.next_free = free;
        let value = slot.value;
        self.free = id.index;
        self.used = self.used.saturating_sub(1);
        Some(value)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.storage.as_mut_slice().get_mut(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;
    use crate::tree::Full;
    use crate::tree::tests::Room;

    #[test]
    fn a_stale_name_finds_nothing_after_its_slot_was_reused() {
        let mut slots = Slots::new(Room::new(1));
        let first = slots.add(7).unwrap();
        assert_eq!(slots.add(8), Err(Full), "one slot only");
        assert_eq!(slots.remove(first), Some(7));
        assert_eq!(slots.remove(first), None);
        let second = slots.add(9).unwrap();
        assert_eq!((second.index, slots.get(first), slots.get(second)), (first.index, None, Some(&9)));
    }
}
