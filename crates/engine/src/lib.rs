//! userfaultfd's behaviour as state machines that return decisions.
