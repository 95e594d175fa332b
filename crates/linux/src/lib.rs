//! The Linux kernel's own userfaultfd behind the client API.
