//! The allocator of the programs: a piece of the program's own data first, the C library's heap after that.
//!
//! Most programs of the suite take a few hundred bytes and are gone, or stay for years with as little. The heap's
//! first byte costs four system calls and two pages, in a process that exists once per service or per command.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of it: what is left of the two pages that the data of a static program takes otherwise.
const SIZE: usize = 1152;
/// Larger blocks go to the heap, which can take them back.
const LARGEST: usize = 512;

#[repr(align(16))]
struct Piece(UnsafeCell<MaybeUninit<[u8; SIZE]>>);

// SAFETY: blocks of the piece are handed out once, by an atomic counter; their owners share nothing.
unsafe impl Sync for Piece {}

static PIECE: Piece = Piece(UnsafeCell::new(MaybeUninit::uninit()));
static USED: AtomicUsize = AtomicUsize::new(0);

/// See the module. Blocks of it that are not the last one when they are freed stay taken.
#[derive(Debug, Default)]
pub struct Arena;

/// The offset of a block in the piece, if it is there.
fn offset(block: *mut u8) -> Option<usize> {
    (block as usize).checked_sub(PIECE.0.get() as usize).filter(|&offset| offset < SIZE)
}

/// Moves the end of the used part from `from` to `to`; false if it was not there.
fn move_end(from: usize, to: usize) -> bool {
    USED.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

// SAFETY: a block is either one that the counter gave out, aligned and inside the piece, or the system's.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() <= LARGEST && layout.align() <= 16 {
            let used = USED.load(Ordering::Relaxed);
            let start = used.next_multiple_of(layout.align());
            let end = start + layout.size();
            if end <= SIZE && move_end(used, end) {
                // SAFETY: start <= SIZE, so the pointer stays inside the piece or at its end.
                return unsafe { PIECE.0.get().cast::<u8>().add(start) };
            }
        }
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match offset(block) {
            Some(start) => {
                move_end(start + layout.size(), start);
            }
            // SAFETY: a block that is not in the piece came from the system.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = offset(block) else {
            // SAFETY: as in dealloc.
            return unsafe { System.realloc(block, layout, size) };
        };
        if size <= LARGEST && start + size <= SIZE && move_end(start + layout.size(), start + size) {
            return block;
        }
        // SAFETY: the new block is at least as long as what is copied, and another one than the old.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, since there is one piece.
    #[test]
    fn small_blocks_come_from_the_piece_until_it_is_full_and_large_ones_never() {
        let arena = Arena;
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: every block is used within its layout and freed once.
        unsafe {
            let first = arena.alloc(layout(10));
            assert_eq!(offset(first), Some(0));
            first.write_bytes(7, 10);
            let grown = arena.realloc(first, layout(10), 100);
            assert_eq!(grown, first, "the last block grows in place");
            let second = arena.alloc(layout(1));
            assert_eq!(offset(second), Some(104));
            let moved = arena.realloc(grown, layout(100), 200);
            assert_ne!(moved, grown);
            assert_eq!(std::slice::from_raw_parts(moved, 10), [7; 10]);
            arena.dealloc(moved, layout(200));
            assert_eq!(offset(arena.alloc(layout(8))), Some(112), "the last block is given back");
            let large = arena.alloc(layout(LARGEST + 1));
            assert_eq!(offset(large), None);
            arena.dealloc(large, layout(LARGEST + 1));
            while offset(arena.alloc(layout(400))).is_some() {}
            let outside = arena.alloc(layout(400));
            assert_eq!(offset(outside), None);
            let outside = arena.realloc(outside, layout(400), 600);
            arena.dealloc(outside, layout(600));
        }
    }
}
