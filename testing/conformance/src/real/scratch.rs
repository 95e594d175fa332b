//! Memory for arguments and buffers that may be bad in every way.
//!
//! ```text
//! page 0  readable and writable     page 1  nothing
//! page 2  readable                  page 3  nothing
//! ```
//!
//! Kernel counterpart: none.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::sync::LazyLock;

use super::sys;
use crate::place::{At, Result};
use crate::world::PAGE;

/// One thread's scratch memory.
#[derive(Debug)]
pub struct Scratch {
    base: u64,
}

static MEMORY: LazyLock<File> = LazyLock::new(|| {
    let file = OpenOptions::new().read(true).write(true).open("/proc/self/mem");
    file.unwrap_or_else(|error| panic!("/proc/self/mem: {error}"))
});

/// Writes memory whatever it allows, without ever waiting.
///
/// # Panics
///
/// If it cannot be written.
pub fn write(address: u64, bytes: &[u8]) {
    MEMORY.write_all_at(bytes, address).unwrap_or_else(|error| panic!("write {address:#x}: {error}"));
}

/// Reads memory whatever it allows, without ever waiting.
///
/// # Errors
///
/// `EIO` where nothing is.
pub fn read(address: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    match MEMORY.read_exact_at(&mut bytes, address) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

impl Default for Scratch {
    fn default() -> Self {
        let base = sys::map(0, 4 * PAGE, libc::PROT_NONE, libc::MAP_PRIVATE);
        sys::protect(base, PAGE, libc::PROT_READ | libc::PROT_WRITE);
        sys::protect(base + 2 * PAGE, PAGE, libc::PROT_READ);
        Self { base }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        sys::unmap(self.base, 4 * PAGE);
    }
}

impl Scratch {
    /// Puts an argument there; answers its address.
    #[must_use]
    pub fn put(&self, bytes: &[u8], at: At) -> u64 {
        let (address, good) = self.place(bytes.len(), at);
        if good > 0 {
            write(address, &bytes[..good]);
        }
        address
    }

    /// Fetches what was written back, as far as it could be.
    pub fn fetch(&self, address: u64, bytes: &mut [u8], at: At) {
        let (_, good) = self.place(bytes.len(), at);
        if let Ok(found) = read(address, good) {
            bytes[..good].copy_from_slice(&found);
        }
    }

    /// The address of `len` bytes, and how many of them exist.
    #[must_use]
    pub fn place(&self, len: usize, at: At) -> (u64, usize) {
        let size = u64::try_from(len).unwrap_or(0);
        match at {
            At::Good => (self.base, len),
            At::Nowhere => (self.base + PAGE, 0),
            At::ReadOnly => (self.base + 3 * PAGE - size, len),
            At::Cut(good) => (self.base + PAGE - u64::try_from(good).unwrap_or(0), good.min(len)),
        }
    }
}
