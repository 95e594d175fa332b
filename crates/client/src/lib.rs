//! What a monitor may do, whoever provides the faults.
