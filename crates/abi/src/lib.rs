//! Numbers and layouts of userfaultfd: ioctls, structures, feature bits, messages.
