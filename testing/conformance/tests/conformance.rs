//! Each scenario as a test: run wherever its citations say, and compared result by result.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot go on fails the test")]

macro_rules! tests {
    ($($module:ident $path:literal: [$($name:ident,)*];)*) => {
        $(mod $module {
            $(#[test]
            fn $name() {
                userfault_conformance::scenarios::find(stringify!($module), stringify!($name)).check();
            })*
        })*
    };
}

userfault_conformance::for_each_scenario!(tests);

#[path = "suite/deviations.rs"]
mod deviations;
#[path = "suite/hammer.rs"]
mod hammer;
mod kernel;
#[path = "suite/original_program.rs"]
mod original_program;
#[path = "suite/provider.rs"]
mod provider;
#[path = "suite/random.rs"]
mod random;
