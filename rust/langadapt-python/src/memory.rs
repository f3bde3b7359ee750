//! What happens where the system refuses memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

/// The system's allocator, but that a refusal nobody can report (see [`langadapt_core::memory`]) ends the process with
/// one line and exit code 1, where Rust would abort it. What was written to temporary places goes with the next run.
struct OneLine;

#[global_allocator]
static ALLOCATOR: OneLine = OneLine;

unsafe extern "C" {
    /// Ends the process without any clean-up of it, which would need memory and may wait for its threads.
    fn _exit(code: i32) -> !;
}

/// `given`, unless it is null where nobody looks.
fn told(given: *mut u8, size: usize) -> *mut u8 {
    if given.is_null() && !langadapt_core::memory::may_fail() {
        let mut line = [0_u8; 120];
        let mut rest = &mut line[..];
        let _ = writeln!(rest, "error: out of memory: the system refused {size} bytes more; give this process more");
        let left = rest.len();
        let _ = std::io::stderr().write_all(&line[..line.len() - left]);
        // SAFETY: C's own, declared as it is there.
        unsafe { _exit(1) }
    }
    given
}

// SAFETY: all is the system allocator's; null, which it gives for a refusal, is passed on or not returned from.
unsafe impl GlobalAlloc for OneLine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        told(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        told(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        told(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}
