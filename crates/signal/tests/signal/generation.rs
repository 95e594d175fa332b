//! The number that a forked child does not have.

use userfault_signal::{Turn, fork_generation};

/// Runs `body` in a child made by `clone` with `flags`; its exit status. Without CLONE_VM that is a fork.
fn in_child(flags: i32, mut body: impl FnMut() -> i32) -> i32 {
    extern "C" fn run<F: FnMut() -> i32>(body: *mut std::ffi::c_void) -> i32 {
        // SAFETY: the closure below, which lives until the child has ended.
        let body = unsafe { &mut *body.cast::<F>() };
        body()
    }
    fn entry<F: FnMut() -> i32>(_: &F) -> extern "C" fn(*mut std::ffi::c_void) -> i32 {
        run::<F>
    }
    let mut stack = vec![0_u128; 1 << 13];
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: a stack of its own, which lives until the child has ended; the child makes system calls only.
    let child = unsafe { libc::clone(entry(&body), top, flags | libc::SIGCHLD, (&raw mut body).cast()) };
    assert!(child > 0, "clone");
    let mut status = 0;
    // SAFETY: a live integer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

#[test]
fn a_forked_child_and_its_child_have_numbers_of_their_own_and_one_that_shares_the_memory_has_not() {
    let here = fork_generation().unwrap();
    let is_other = |than: &[u32]| fork_generation().is_ok_and(|number| number != 0 && !than.contains(&number));
    let status = in_child(0, || {
        let own = fork_generation().unwrap_or(0);
        let inner = in_child(0, || i32::from(!is_other(&[here, own])));
        i32::from(!is_other(&[here]) || inner != 0)
    });
    assert_eq!(status, 0);
    assert_eq!(in_child(libc::CLONE_VM | libc::CLONE_VFORK, || i32::from(fork_generation() != Ok(here))), 0);
    assert_eq!(fork_generation(), Ok(here), "and nothing has changed here");
}

#[test]
fn a_turn_that_is_taken_at_a_fork_is_free_in_the_child_and_not_here() {
    static TURN: Turn = Turn::new();
    let taken = TURN.take();
    let twice = || {
        drop(TURN.take());
        drop(TURN.take());
        0
    };
    assert_eq!(in_child(0, twice), 0);
    let is_waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| drop(TURN.take()));
        assert_eq!(in_child(0, twice), 0);
        let is_waiting = !waiting.is_finished();
        drop(taken);
        is_waiting
    });
    assert!(is_waiting);
}
