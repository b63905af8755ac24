//! The module's allocator: the system's, but large blocks are kept for the next call.
//!
//! A part takes some hundred megabytes for the blink of an eye, and a worker makes one part after the other. Getting these pages from
//! the operating system and handing them back each time cost a third of `build` and a quarter of `validate` when it was measured.
//! What is kept has a limit, and goes back when the caller says that it is done for now (`give_back`). Only this module's memory comes
//! from here, never Python's or Arrow's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, MutexGuard};

/// Smaller blocks go to the system.
const BLOCK_BYTES_MIN: usize = 1 << 20;

/// Most bytes that are kept.
const RETAINED_BYTES_MAX: usize = 128 << 20;

/// Most blocks that are kept.
const BLOCKS_MAX: usize = 32;

/// Alignment of all blocks that may be kept.
const PAGE_BYTES: usize = 4096;

/// A block that nobody uses: its address and size; a size of 0 where there is none.
#[derive(Clone, Copy)]
struct Block {
    address: usize,
    bytes: usize,
}

const NO_BLOCK: Block = Block { address: 0, bytes: 0 };

struct Retained {
    blocks: [Block; BLOCKS_MAX],
    bytes: usize,
    /// Whose turn it is to be given up.
    oldest: usize,
}

static RETAINED: Mutex<Retained> = Mutex::new(Retained { blocks: [NO_BLOCK; BLOCKS_MAX], bytes: 0, oldest: 0 });

impl Retained {
    fn take(&mut self, bytes: usize) -> Option<*mut u8> {
        let block = self.blocks.iter_mut().find(|block| block.bytes == bytes)?;
        self.bytes -= bytes;
        Some(std::mem::replace(block, NO_BLOCK).address as *mut u8)
    }

    fn take_all(&mut self) -> [Block; BLOCKS_MAX] {
        self.bytes = 0;
        std::mem::replace(&mut self.blocks, [NO_BLOCK; BLOCKS_MAX])
    }

    /// Keep a block if there is room; else give back the block whose turn it is, to be tried again.
    fn keep(&mut self, block: Block) -> Result<(), Block> {
        if self.bytes + block.bytes <= RETAINED_BYTES_MAX
            && let Some(free) = self.blocks.iter_mut().find(|block| block.bytes == 0)
        {
            *free = block;
            self.bytes += block.bytes;
            return Ok(());
        }
        self.oldest = (self.oldest + 1) % BLOCKS_MAX;
        let given_up = std::mem::replace(&mut self.blocks[self.oldest], NO_BLOCK);
        self.bytes -= given_up.bytes;
        Err(given_up)
    }
}

/// Kept blocks, unless another thread is at them just now. Never waits: after a fork that thread may be gone for good.
fn retained() -> Option<MutexGuard<'static, Retained>> {
    RETAINED.try_lock().ok()
}

/// The layout that a request of a large block is rounded up to: sizes in steps of a quarter of a power of two. None for others.
fn block_layout(layout: Layout) -> Option<Layout> {
    if layout.size() < BLOCK_BYTES_MIN || layout.align() > PAGE_BYTES {
        return None;
    }
    let step = 1 << (layout.size().ilog2() - 2);
    Layout::from_size_align(layout.size().checked_next_multiple_of(step)?, PAGE_BYTES).ok()
}

/// Give all kept blocks back to the system; return how many bytes they had. Blocks that another thread is at just now stay.
pub(crate) fn give_back() -> usize {
    let Some(blocks) = retained().map(|mut retained| retained.take_all()) else {
        return 0;
    };
    // The list is free again by now: giving hundreds of megabytes back takes milliseconds.
    blocks.into_iter().map(free).sum()
}

/// See the module.
pub(crate) struct RetainingAllocator;

// SAFETY: every pointer comes from `System` with the layout that `block_layout` makes of the caller's (or the caller's own where it
// makes none), and goes back to `System` with the same; a kept block is in nobody's hands until `take` removes it from the list.
unsafe impl GlobalAlloc for RetainingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(block) = block_layout(layout) else {
            // SAFETY: the caller's own contract.
            return unsafe { System.alloc(layout) };
        };
        let kept = retained().and_then(|mut retained| retained.take(block.size()));
        // SAFETY: a block's size is not zero.
        kept.unwrap_or_else(|| unsafe { System.alloc(block) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(block) = block_layout(layout) else {
            // SAFETY: the caller's own contract.
            return unsafe { System.dealloc(pointer, layout) };
        };
        let freed = Block { address: pointer as usize, bytes: block.size() };
        // One block alone must not turn all others out.
        if freed.bytes <= RETAINED_BYTES_MAX / 2 {
            for _ in 0..=BLOCKS_MAX {
                match retained().map(|mut retained| retained.keep(freed)) {
                    Some(Ok(())) => return,
                    Some(Err(given_up)) => {
                        free(given_up);
                    }
                    None => break,
                }
            }
        }
        free(freed);
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract makes the new layout valid.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (old, new) = (block_layout(layout), block_layout(wanted));
        if old.is_none() && new.is_none() {
            // SAFETY: the caller's own contract.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        if old == new {
            return pointer;
        }
        // SAFETY: both blocks have at least the smaller size, and are not the same.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(pointer, moved, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

/// Give a block that was kept back to the system; return its size.
fn free(block: Block) -> usize {
    if block.bytes > 0 {
        // SAFETY: blocks are made with this very layout and are in nobody's hands.
        unsafe { System.dealloc(block.address as *mut u8, Layout::from_size_align_unchecked(block.bytes, PAGE_BYTES)) }
    }
    block.bytes
}
