//! Page faults handled in userland, over the kernel's userfaultfd or without it.
