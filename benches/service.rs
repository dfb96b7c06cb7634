//! The service of the comparison, as cheap as a process can be, so that it is not in the figures: says its process id
//! on descriptor 1, a newline on descriptor 3, and waits for a signal that ends it. No library, no start-up.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
mod kernel {
    pub const WRITE: usize = 1;
    pub const GETPID: usize = 39;
    pub const PPOLL: usize = 271;
}
#[cfg(target_arch = "aarch64")]
mod kernel {
    pub const WRITE: usize = 64;
    pub const GETPID: usize = 172;
    pub const PPOLL: usize = 73;
}

unsafe fn call(number: usize, a: usize, b: usize, c: usize) -> usize {
    let result;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") 0,
             out("rcx") _, out("r11") _)
    };
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") 0)
    };
    result
}

// The stack is as the kernel left it, aligned for a call.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start: call {}", sym service);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start: bl {}", sym service);

extern "C" fn service() -> ! {
    unsafe {
        let pid = (call(kernel::GETPID, 0, 0, 0) as u32).to_ne_bytes();
        call(kernel::WRITE, 1, pid.as_ptr() as usize, pid.len());
        call(kernel::WRITE, 3, b"\n".as_ptr() as usize, 1);
        loop {
            call(kernel::PPOLL, 0, 0, 0);
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
