//! SIGSEGV and SIGBUS handlers: install, chain, masks, alternate stacks.
