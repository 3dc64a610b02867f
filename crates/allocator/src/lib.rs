//! An allocator for processes that live for a millisecond.
//!
//! musl's own returns a freed group to the kernel at once: decoding one link message costs about
//! ten `mmap` and ten `munmap` calls with it, which doubles a plugin's run time. Here small blocks
//! come from an arena that is part of the program (pages that are never touched cost nothing),
//! and a freed block waits in the list of its size class for the next of its size, so that work
//! on ten thousand links needs no more memory than work on one. Large blocks, and those for which
//! the arena has no room, are the system allocator's, as are all after
//! [`Allocator::use_system`]: what a daemon calls first.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the arena: what an ADD uses, several times over.
const ARENA_SIZE: usize = 512 << 10;
/// Blocks of at most this size come from the arena.
const LARGEST_BLOCK: usize = 64 << 10;
/// The smallest block, and every block's alignment.
const SMALLEST_BLOCK: usize = 16;
/// Size classes: powers of two from the smallest block to the largest.
const CLASSES: usize =
    (LARGEST_BLOCK.trailing_zeros() - SMALLEST_BLOCK.trailing_zeros() + 1) as usize;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; ARENA_SIZE]>);

/// What the lock guards.
struct State {
    /// Bytes of the arena given out so far.
    used: usize,
    /// First free block of each class; each free block begins with the address of the next.
    free: [*mut u8; CLASSES],
}

/// The allocator. There may be one in a program, as its `#[global_allocator]`.
pub struct Allocator {
    arena: Arena,
    state: UnsafeCell<State>,
    locked: AtomicBool,
    system_only: AtomicBool,
}

#[expect(unsafe_code, reason = "an allocator is shared by all threads")]
// SAFETY: `state` and the free blocks are only touched while `locked` is held; the bytes of a block
// that was given out belong to whom it was given.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// An allocator with an empty arena.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self {
            arena: Arena(UnsafeCell::new([0; ARENA_SIZE])),
            state: UnsafeCell::new(State { used: 0, free: [null_mut(); CLASSES] }),
            locked: AtomicBool::new(false),
            system_only: AtomicBool::new(false),
        }
    }

    /// Leaves all later blocks to the system allocator, which gives memory back.
    pub fn use_system(&self) {
        self.system_only.store(true, Ordering::Relaxed);
    }

    fn contains(&self, block: *mut u8) -> bool {
        let start = self.arena.0.get() as usize;
        (start..start + ARENA_SIZE).contains(&(block as usize))
    }

    /// Runs `work` on the state, one thread at a time. Plugins have one thread, so nobody spins.
    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        #[expect(unsafe_code, reason = "the lock is held")]
        // SAFETY: the lock is held until `work` is done, and `work` allocates nothing.
        let result = work(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// A block from the arena, with whether its bytes are zero; null when there is no room.
    fn take(&self, class: usize) -> (*mut u8, bool) {
        self.locked(|state| {
            let Some(first) = state.free.get_mut(class) else { return (null_mut(), false) };
            if !first.is_null() {
                let block = *first;
                #[expect(unsafe_code, reason = "free blocks hold the list that they are in")]
                // SAFETY: a free block begins with a pointer that `give_back` wrote, and blocks
                // are aligned to 16.
                let next = unsafe { block.cast::<*mut u8>().read() };
                *first = next;
                return (block, false);
            }
            let size = SMALLEST_BLOCK << class;
            if state.used + size > ARENA_SIZE {
                return (null_mut(), false);
            }
            let block = self.arena.0.get().cast::<u8>().wrapping_add(state.used);
            state.used += size;
            (block, true)
        })
    }

    fn give_back(&self, block: *mut u8, class: usize) {
        self.locked(|state| {
            let Some(first) = state.free.get_mut(class) else { return };
            #[expect(unsafe_code, reason = "free blocks hold the list that they are in")]
            // SAFETY: the block was given out for this class, so it has room for a pointer and is
            // aligned to 16, and who gives it back no longer uses it.
            unsafe {
                block.cast::<*mut u8>().write(*first);
            }
            *first = block;
        });
    }

    fn allocate(&self, layout: Layout) -> (*mut u8, bool) {
        match class_of(layout) {
            Some(class) if !self.system_only.load(Ordering::Relaxed) => self.take(class),
            _ => (null_mut(), false),
        }
    }
}

/// The class of the blocks for `layout`; `None` when they are the system's.
fn class_of(layout: Layout) -> Option<usize> {
    if layout.align() > SMALLEST_BLOCK || layout.size() > LARGEST_BLOCK {
        return None;
    }
    let size = layout.size().max(SMALLEST_BLOCK).next_power_of_two();
    Some((size.trailing_zeros() - SMALLEST_BLOCK.trailing_zeros()) as usize)
}

#[expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]
// SAFETY: blocks of the arena are disjoint, at least as large as asked, aligned to 16 where at most
// that is asked, and only given out again after they were given back; all others are the system
// allocator's. Which of both a block is, its address tells.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.allocate(layout) {
            // SAFETY: the caller's promises on `layout` are those that `System` asks for.
            (block, _) if block.is_null() => unsafe { System.alloc(layout) },
            (block, _) => block,
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.allocate(layout) {
            // SAFETY: as for `alloc`.
            (block, _) if block.is_null() => unsafe { System.alloc_zeroed(layout) },
            (block, true) => block,
            (block, false) => {
                // SAFETY: the block has at least this size.
                unsafe { ptr::write_bytes(block, 0, layout.size()) };
                block
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_of(layout) {
            Some(class) if self.contains(block) => self.give_back(block, class),
            // SAFETY: the block is not the arena's, so `System` gave it, for this layout.
            _ => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !self.contains(block) {
            // SAFETY: the block is not the arena's, so `System` gave it, for this layout.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // SAFETY: the caller promises that the size, rounded up to the alignment, is in range.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if class_of(new_layout) == class_of(layout) {
            return block;
        }
        // SAFETY: the old block is valid for its size, the new one for its own, and they are
        // disjoint.
        unsafe {
            let new_block = self.alloc(new_layout);
            if !new_block.is_null() {
                ptr::copy_nonoverlapping(block, new_block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new_block
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    static ALLOCATOR: Allocator = Allocator::new();

    /// Fills, keeps, grows and frees blocks of all sizes; every block keeps its bytes.
    fn exercise(allocator: &'static Allocator, seed: u64, rounds: usize) {
        let mut state = seed;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut live: VecDeque<(usize, Layout, u8)> = VecDeque::new();
        for round in 0..rounds {
            let mark = round as u8;
            let size = 1 + random(if round % 50 == 0 { 200_000 } else { 600 });
            let layout = Layout::from_size_align(size, 1 << random(7)).unwrap();
            #[expect(unsafe_code, reason = "the allocator's own interface")]
            // SAFETY: layouts are kept with their blocks; blocks are freed once.
            unsafe {
                let block = if random(2) == 0 {
                    let block = allocator.alloc(layout);
                    ptr::write_bytes(block, 0, size);
                    block
                } else {
                    allocator.alloc_zeroed(layout)
                };
                assert!(!block.is_null() && (block as usize).is_multiple_of(layout.align()));
                assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 0));
                ptr::write_bytes(block, mark, size);
                let larger = size * (1 + random(3));
                let block = allocator.realloc(block, layout, larger);
                assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == mark));
                ptr::write_bytes(block, mark, larger);
                let layout = Layout::from_size_align(larger, layout.align()).unwrap();
                live.push_back((block as usize, layout, mark));
                if live.len() > 100 {
                    let (block, layout, mark) = live.remove(random(live.len())).unwrap();
                    let block = block as *mut u8;
                    let bytes = std::slice::from_raw_parts(block, layout.size());
                    assert!(bytes.iter().all(|byte| *byte == mark));
                    allocator.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn blocks_keep_their_bytes_in_every_thread() {
        let thread = |seed| std::thread::spawn(move || exercise(&ALLOCATOR, seed, 20_000));
        let threads: Vec<_> = (0..4).map(thread).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn freed_blocks_are_used_again() {
        static REUSING: Allocator = Allocator::new();
        let layout = Layout::from_size_align(3000, 8).unwrap();
        for _ in 0..10_000 {
            #[expect(unsafe_code, reason = "the allocator's own interface")]
            // SAFETY: the block is freed with its own layout.
            unsafe {
                let block = REUSING.alloc(layout);
                assert!(REUSING.contains(block));
                REUSING.dealloc(block, layout);
            }
        }
        assert_eq!(REUSING.locked(|state| state.used), 4096);
    }

    #[test]
    fn a_daemon_leaves_the_arena() {
        static LEAVING: Allocator = Allocator::new();
        let layout = Layout::from_size_align(64, 8).unwrap();
        #[expect(unsafe_code, reason = "the allocator's own interface")]
        // SAFETY: each block is freed with its own layout.
        unsafe {
            let early = LEAVING.alloc(layout);
            LEAVING.use_system();
            let late = LEAVING.alloc(layout);
            assert!(LEAVING.contains(early) && !LEAVING.contains(late));
            LEAVING.dealloc(late, layout);
            LEAVING.dealloc(early, layout);
        }
    }
}
