//! Owned memory mappings: reserve, lend, copy in and out, advise, unmap.
