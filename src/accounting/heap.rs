//! The process's allocator with two counters: bytes allocated now, and the most since the last reset.
//!
//! Every allocation counts alike, whether the system takes it from a heap or maps pages for it; memory that
//! others map (a token cache on disk, a graphics driver) does not count. Ours and no crate's, because those at
//! hand leave `alloc_zeroed` and `realloc` to their defaults, which touch every page and copy.

#![allow(
    unsafe_code,
    reason = "an allocator cannot be written without it; this one only counts, and tells the system's what to keep"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes allocated now.
pub(super) fn in_use() -> u64 {
    IN_USE.load(Relaxed) as u64
}

/// The most bytes allocated at once since the last [`reset_highest`].
pub(super) fn highest() -> u64 {
    HIGHEST.load(Relaxed) as u64
}

/// Starts a new high-water mark at what is allocated now.
pub(super) fn reset_highest() {
    HIGHEST.store(IN_USE.load(Relaxed), Relaxed);
}

/// glibc's settings, as `malloc.h` has them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    pub(super) const M_TRIM_THRESHOLD: c_int = -1;
    pub(super) const M_TOP_PAD: c_int = -2;
    pub(super) const M_MMAP_MAX: c_int = -4;

    unsafe extern "C" {
        pub(super) fn mallopt(parameter: c_int, value: c_int) -> c_int;
        pub(super) fn malloc_trim(pad: usize) -> c_int;
    }
}

/// Has the system's allocator keep what is freed, large blocks too, where it can be told so (glibc).
pub(super) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Taken at once where the heap must grow.
        const TOP_PAD: i32 = 64 << 20;
        let settings = [
            (glibc::M_MMAP_MAX, 0),
            (glibc::M_TRIM_THRESHOLD, -1),
            (glibc::M_TOP_PAD, TOP_PAD),
        ];
        for (parameter, value) in settings {
            // SAFETY: it takes any values and refuses those it does not know. glibc calls it unsafe beside other
            // threads for one reason (`const:mallopt`): they read the setting, an aligned word, unlocked. Each of
            // these is valid beside either value of the others; a thread that still sees an old one allocates as before.
            unsafe { glibc::mallopt(parameter, value) };
        }
    }
}

/// Gives what is kept but not in use back to the system.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        glibc::malloc_trim(0)
    };
}

struct Counting;

fn grew(by: usize) {
    let now = IN_USE.fetch_add(by, Relaxed) + by;
    // Most allocations set no mark: a load is cheaper than a write that other threads must see.
    if now > HIGHEST.load(Relaxed) {
        HIGHEST.fetch_max(now, Relaxed);
    }
}

fn shrank(by: usize) {
    IN_USE.fetch_sub(by, Relaxed);
}

// SAFETY: every call is handed to the system's allocator unchanged, and so are its promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system's.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            grew(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            grew(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) };
        shrank(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        if !moved.is_null() {
            if moved == pointer {
                shrank(layout.size());
                grew(new_size);
            } else {
                // While it was copied there were both, but for pages that the system moved by itself.
                grew(new_size);
                shrank(layout.size());
            }
        }
        moved
    }
}
