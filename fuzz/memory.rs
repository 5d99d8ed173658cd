//! The memory limit of the targets: an input of a few kilobytes has no reason to hold megabytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// At any one moment, all of Rust's own allocations together.
const MOST_BYTES: usize = 64 << 20;

struct Limited;

#[global_allocator]
static LIMITED: Limited = Limited;

static HELD: AtomicUsize = AtomicUsize::new(0);

// Safety: it counts, and leaves the rest to the system's allocator.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size() > MOST_BYTES {
            // A panic would allocate. libFuzzer reports the input of a process that aborts.
            std::process::abort();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}
