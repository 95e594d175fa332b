//! The regions of this process, by tag.
//!
//! Guarded by the layout lock: read by faults and fills, changed by register, unregister and unmap. A
//! region's tag is its place in the table and its mapping's tag for the engine.

use userfault_engine::{Mapping, Page, PageRange};
use userfault_memory::{Fixed, MapError};

use crate::adopt::Adoption;
use crate::machine::Machine;
use crate::region::{Contents, Region};
use crate::states::States;

/// How many regions there can be.
const REGIONS: usize = 1 << 16;
/// How many chunks one search for mappings looks at.
const SEARCH: usize = 1024;

pub(crate) struct Regions {
    slots: Fixed<Option<Region>>,
}

impl Regions {
    pub(crate) fn new() -> Result<Self, MapError> {
        Ok(Self { slots: Fixed::with_capacity(REGIONS)? })
    }

    /// Adds a region; its tag.
    pub(crate) fn add(&mut self, machine: &Machine, base: usize, pages: usize) -> Result<u32, MapError> {
        self.add_as(|tag| Region::new(machine, base, pages, tag, None))
    }

    /// Adds a region of shared memory; its tag.
    pub(crate) fn add_shared(
        &mut self,
        machine: &Machine,
        base: usize,
        pages: usize,
        contents: Contents,
    ) -> Result<u32, MapError> {
        self.add_as(|tag| Region::new(machine, base, pages, tag, Some(contents)))
    }

    /// Adds a region of the program's own memory; its tag.
    pub(crate) fn add_adopted(&mut self, machine: &Machine, adoption: Adoption) -> Result<u32, MapError> {
        self.add_as(|tag| Region::adopted(machine, adoption, tag))
    }

    fn add_as(&mut self, make: impl FnOnce(u32) -> Result<Region, MapError>) -> Result<u32, MapError> {
        let free = self.slots.as_ref().iter().position(Option::is_none);
        let index = free.unwrap_or(self.slots.as_ref().len());
        let tag = u32::try_from(index).map_err(|_| MapError::Empty)?;
        let region = make(tag)?;
        match free.and_then(|index| self.slots.as_mut().get_mut(index)) {
            Some(slot) => *slot = Some(region),
            None => {
                if self.slots.push(Some(region)).is_err() {
                    return Err(MapError::Os { call: "table of regions", errno: libc::ENOMEM });
                }
            }
        }
        Ok(tag)
    }

    pub(crate) fn remove(&mut self, tag: u32) -> Option<Region> {
        self.slots.as_mut().get_mut(tag as usize)?.take()
    }

    pub(crate) fn get(&self, tag: u32) -> Option<&Region> {
        self.slots.as_ref().get(tag as usize)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Region> {
        self.slots.as_ref().iter().flatten()
    }

    /// The region with `page`. Linear: for faults that no registration explains, and for the door.
    pub(crate) fn find(&self, page: Page) -> Option<&Region> {
        self.iter().find(|region| region.has(page))
    }

    /// Fills `into` with what the engine wants to know before it changes registrations in `range`: the
    /// regions that overlap it, in address order; if none does, the first above. As many as there is room
    /// for.
    pub(crate) fn snapshot(&self, range: PageRange, into: &mut Fixed<Mapping>) {
        let overlapping =
            self.iter().flat_map(Region::mappings).filter(|mapping| mapping.range.intersect(range).is_some());
        for mapping in overlapping {
            if into.push(mapping).is_err() {
                break;
            }
        }
        into.as_mut().sort_unstable_by_key(|mapping| mapping.range.start());
        if into.as_ref().is_empty() {
            let above = self.iter().flat_map(Region::mappings).filter(|mapping| mapping.range.start() >= range.end());
            let _there_is_room = above.min_by_key(|mapping| mapping.range.start()).map(|first| into.push(first));
        }
    }

    /// Whether some region has a page of `range`.
    pub(crate) fn overlap(&self, range: PageRange) -> bool {
        self.iter().flat_map(Region::mappings).any(|mapping| mapping.range.intersect(range).is_some())
    }

    /// How many mappings the regions have, for the capacity of a snapshot.
    pub(crate) fn mappings(&self) -> usize {
        self.iter().flat_map(Region::mappings).count()
    }

    /// Looks, from where it stopped last time, for a chunk that can do with fewer mappings.
    pub(crate) fn relieve(&self, machine: &Machine, states: &States) -> bool {
        let chunks: usize = self.iter().map(Region::chunks).sum();
        for _ in 0..chunks.min(SEARCH) {
            let mut at = machine.hand.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % chunks;
            for region in self.iter() {
                if at < region.chunks() {
                    if region.relieve(machine, states, at) {
                        return true;
                    }
                    break;
                }
                at -= region.chunks();
            }
        }
        false
    }
}
