//! Hosts the userfaultfd engine in an ordinary process.
