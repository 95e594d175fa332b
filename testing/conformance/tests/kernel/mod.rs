//! What only a kernel has: descriptors, other processes, accesses by system calls.

mod common;
mod descriptor;
mod other_process;
mod system_calls;
