//! What `poll` says about a descriptor.
//!
//! Kernel counterpart: `include/uapi/asm-generic/poll.h`.

use crate::bits::bit_set;

bit_set! {
    /// Events answered by `poll(2)`.
    ///
    /// # Source
    ///
    /// `poll(2)`; numbers of the generic Linux table.
    ///
    /// Example: [`Features`](crate::Features), which has the same operations.
    pub struct PollEvents(u16) {
        /// A message can be read.
        IN = 0x001;
        /// The descriptor is not usable, for instance before the handshake.
        ERR = 0x008;
        /// The other side is gone.
        HUP = 0x010;
    }
}
