//! Filters of system calls, as sandboxes install them.
//!
//! 1. The program of a filter is a live local.
#![expect(unsafe_code, reason = "installs a filter; the invariant above is this file's proof")]

use std::ptr;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// What a filter says of a call.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    number: i64,
    /// Only if this argument has this value.
    argument: Option<(u8, u32)>,
    action: u32,
}

pub(crate) const fn refuse(number: i64, errno: i32) -> Rule {
    Rule { number, argument: None, action: libc::SECCOMP_RET_ERRNO | errno.cast_unsigned() }
}

pub(crate) const fn refuse_if(number: i64, argument: u8, value: u32, errno: i32) -> Rule {
    Rule { argument: Some((argument, value)), ..refuse(number, errno) }
}

pub(crate) const fn allow(number: i64) -> Rule {
    Rule { number, argument: None, action: ALLOW }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k }
}

fn unless_equal(k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter { jf: skip, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k) }
}

/// For this process from now on: the first rule that fits decides, else `otherwise`, an errno or 0 to allow.
pub(crate) fn install(rules: &[Rule], otherwise: i32) {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut program = Vec::new();
    for rule in rules {
        program.push(statement(load, 0));
        let number = u32::try_from(rule.number).unwrap();
        if let Some((argument, value)) = rule.argument {
            program.push(unless_equal(number, 3));
            // The low half of the argument.
            program.push(statement(load, 16 + 8 * u32::from(argument)));
            program.push(unless_equal(value, 1));
        } else {
            program.push(unless_equal(number, 1));
        }
        program.push(statement(answer, rule.action));
    }
    let last = if otherwise == 0 { ALLOW } else { libc::SECCOMP_RET_ERRNO | otherwise.cast_unsigned() };
    program.push(statement(answer, last));
    let program = libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let place = ptr::from_ref(&program);
    // SAFETY: invariant 1.
    let answer = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, place) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}
