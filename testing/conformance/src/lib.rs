//! One scenario, three places: simulator, process provider, kernel.
//!
//! A scenario is a function over a [`world::World`]; each of its steps is recorded in comparable
//! form. [`suite`] runs it at each place that its citations name and compares the records result by
//! result: return values, errnos, result fields, messages, page contents, who woke. The kernel is the
//! oracle; besides, each scenario says what the specification expects, so that a wrong oracle would be
//! noticed.
//!
//! ```text
//! scenarios/   what is done          world    the steps, and what is recorded of them
//! places/      where                 place    what every place can do
//! suite        run and compare       record   the recorded steps · deviations  the excuses
//! real/        memory, threads and system calls of the places that are real
//! ```
//!
//! Kernel counterpart: the selftests of userfaultfd.

pub mod deviations;
pub mod place;
pub mod places;
pub mod real;
pub mod record;
pub mod scenarios;
pub mod suite;
pub mod world;
