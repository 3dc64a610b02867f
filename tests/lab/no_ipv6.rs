//! Programs for which the kernel has no IPv6, as on a node that was started with `ipv6.disable=1`.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// Where the system call's number is in what a filter sees (`struct seccomp_data`), and the lower half of its first argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// Has the program, and whatever it starts, find no sockets of IPv6: the kernel says so of each that it asks for. What namespaces
/// cannot do, a filter of system calls does.
pub fn without_ipv6(command: &mut Command) {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let refused = libc::SECCOMP_RET_ERRNO | number(libc::EAFNOSUPPORT);
    let mut steps = [
        step(LOAD, NUMBER, 0),
        step(IS, number(libc::SYS_socket), 3),
        step(LOAD, FIRST_ARGUMENT, 0),
        step(IS, number(libc::AF_INET6), 1),
        step(RETURN, refused, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let filter = move || {
        let program = libc::sock_fprog {
            len: libc::c_ushort::try_from(steps.len()).unwrap_or_default(),
            filter: steps.as_mut_ptr(),
        };
        // SAFETY: the kernel copies the program, which is there until it has.
        #[expect(unsafe_code, reason = "no crate of ours has filters of system calls")]
        let done = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call and nothing else.
    #[expect(unsafe_code, reason = "only the child itself can give up what it may")]
    unsafe {
        command.pre_exec(filter);
    }
}

/// A step; where it compares, so many are passed over if it is something else.
fn step(code: u32, operand: u32, otherwise: u8) -> libc::sock_filter {
    let code = u16::try_from(code).expect("codes have 16 bits");
    libc::sock_filter { code, jt: 0, jf: otherwise, k: operand }
}

fn number<N: TryInto<u32, Error: std::fmt::Debug>>(of: N) -> u32 {
    of.try_into().expect("a small number")
}
