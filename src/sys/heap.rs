//! The memory of a program that lives for milliseconds.
//!
//! glibc's malloc took four of ten instructions of a start: it is made for programs that run for days. This one hands out the next
//! piece of a large one, and keeps what is given back in lists, one for each size. Two things come with it that malloc does not have:
//! memory is taken sixteen pages at a time, one call of the kernel in place of as many faults; and a process that is a copy of another one
//! can leave the pages that both have in common alone ([`leave`]), each of which would be copied when it is written to, or give all of
//! them back ([`start_over`]).
//!
//! What a command that runs for days (`run` in the foreground, `events`) takes is bounded all the same: a piece that was given back serves
//! the next one of its size, and large ones go back to the kernel.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pieces are multiples of this, and aligned to it.
const GRAIN: usize = 16;
/// Up to this size there is a list for each multiple of [`GRAIN`], above it one for each power of two.
const FINE: usize = 1024;
/// What is larger is mapped on its own.
const LARGEST: usize = 32 * 1024;
const LISTS: usize = FINE / GRAIN + (LARGEST / FINE).ilog2() as usize;
/// The address space of a chunk. It costs nothing before it is used.
const CHUNK: usize = 1 << 20;
/// What of a chunk is made usable at once: at first, and in a process that has left what was before.
const STRIDE: usize = 64 * 1024;
/// The same in a process that has left what was before: it needs little more.
const SHORT_STRIDE: usize = 16 * 1024;
const PAGE: usize = 4096;

/// The heap of this program. Nothing is in it unless a [`Global`] has been made the allocator.
static HEAP: Heap = Heap { busy: AtomicBool::new(false), state: UnsafeCell::new(State::EMPTY) };

/// Makes the heap the program's allocator.
#[derive(Clone, Copy, Debug)]
pub struct Global;

struct Heap {
    busy: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: `state` is only reached through `Heap::with`, which sees to it that one thread at a time does.
unsafe impl Sync for Heap {}

unsafe extern "C" {
    /// sys/single_threaded.h: not 0 while the process has one thread. The C library clears it before it makes a second one.
    static __libc_single_threaded: libc::c_char;
}

impl Heap {
    /// Reaches the state. `work` must not allocate.
    #[inline(always)]
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // SAFETY: the C library's variable; it changes only in a call of this very thread while there is one.
        let alone = unsafe { __libc_single_threaded } != 0;
        while !alone && self.busy.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: no other thread is here: there is none, or it waits above.
        let result = work(unsafe { &mut *self.state.get() });
        if !alone {
            self.busy.store(false, Ordering::Release);
        }
        result
    }
}

/// What a chunk, and a piece that was given back, begins with.
#[repr(C)]
struct Link {
    next: *mut Link,
}

struct State {
    /// The next free byte, the end of what is usable, and the end of the chunk.
    next: *mut u8,
    ready: *mut u8,
    end: *mut u8,
    /// All chunks, the newest first.
    chunks: *mut Link,
    /// Pieces that were given back.
    lists: [*mut Link; LISTS],
    /// The first of the chunks that are left alone.
    left: *mut Link,
    stride: usize,
    /// What is mapped on its own.
    single: Singles,
}

/// The pieces that are mapped on their own, for [`start_over`]: a table in memory of the kernel's, which is looked through from its end.
/// There are few, and each of them costs a system call anyway.
struct Singles {
    table: *mut Single,
    count: usize,
    room: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Single {
    place: *mut u8,
    size: usize,
}

impl Singles {
    const EMPTY: Self = Self { table: null_mut(), count: 0, room: 0 };

    fn all(&mut self) -> &mut [Single] {
        if self.table.is_null() {
            return &mut [];
        }
        // SAFETY: the table is ours alone, and its first `count` entries have been written.
        unsafe { std::slice::from_raw_parts_mut(self.table, self.count) }
    }

    /// Without room for more the piece is not known, and [`start_over`] does not give it back.
    fn add(&mut self, place: *mut u8, size: usize) {
        if place.is_null() || (self.count == self.room && !self.grow()) {
            return;
        }
        let entry = self.table.wrapping_add(self.count);
        // SAFETY: there is room for one more entry.
        unsafe { entry.write(Single { place, size }) };
        self.count += 1;
    }

    fn grow(&mut self) -> bool {
        let (old, new) = (self.room * size_of::<Single>(), (self.room * 2 * size_of::<Single>()).max(PAGE));
        let table = if self.table.is_null() { map(new) } else { remap(self.table.cast(), old, new) };
        if !table.is_null() {
            (self.table, self.room) = (table.cast(), new / size_of::<Single>());
        }
        !table.is_null()
    }

    /// What was at `from` is at `to` now, or nowhere.
    fn change(&mut self, from: *mut u8, to: Option<Single>) {
        let all = self.all();
        let Some(index) = all.iter().rposition(|single| single.place == from) else { return };
        match to {
            Some(single) => all[index] = single,
            None => {
                all[index] = all[all.len() - 1];
                self.count -= 1;
            }
        }
    }
}

/// The size that is set aside for a request, and its list; `None` for what is mapped on its own.
#[inline(always)]
const fn class(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size();
    if size > LARGEST || layout.align() > GRAIN {
        None
    } else if size <= FINE {
        let grains = size.div_ceil(GRAIN) + (size == 0) as usize;
        Some((grains * GRAIN, grains - 1))
    } else {
        let size = size.next_power_of_two();
        Some((size, FINE / GRAIN - 1 + (size / FINE).ilog2() as usize))
    }
}

impl State {
    const EMPTY: Self = Self {
        next: null_mut(),
        ready: null_mut(),
        end: null_mut(),
        chunks: null_mut(),
        lists: [null_mut(); LISTS],
        left: null_mut(),
        stride: STRIDE,
        single: Singles::EMPTY,
    };

    #[inline(always)]
    fn take(&mut self, size: usize, list: usize) -> *mut u8 {
        let first = self.lists[list];
        if !first.is_null() {
            // SAFETY: what is in a list was given back: nobody else uses it, and it begins with a link.
            self.lists[list] = unsafe { (*first).next };
            return first.cast();
        }
        if self.ready.addr() - self.next.addr() < size && !self.make_room(size) {
            return null_mut();
        }
        let piece = self.next;
        self.next = piece.wrapping_add(size);
        piece
    }

    #[inline(always)]
    fn give(&mut self, piece: *mut u8, size: usize, list: usize) {
        if piece.wrapping_add(size) == self.next {
            self.next = piece;
        } else if self.left.is_null() || self.is_new(piece) {
            let link: *mut Link = piece.cast();
            // SAFETY: the piece is large enough for a link, aligned for it, and nobody uses it any more.
            unsafe { link.write(Link { next: self.lists[list] }) };
            self.lists[list] = link;
        }
    }

    /// True if a piece is of a chunk that was begun after [`leave`].
    fn is_new(&self, piece: *mut u8) -> bool {
        let mut chunk = self.chunks;
        while chunk != self.left {
            if (chunk.addr()..chunk.addr() + CHUNK).contains(&piece.addr()) {
                return true;
            }
            // SAFETY: every chunk begins with a link, and this one is in the list.
            chunk = unsafe { (*chunk).next };
        }
        false
    }

    /// Makes the last piece larger where it is.
    fn extend(&mut self, piece: *mut u8, from: usize, to: usize) -> bool {
        let last = piece.wrapping_add(from) == self.next;
        let fits = last && to >= from && self.has_room(to - from);
        if fits {
            self.next = piece.wrapping_add(to);
        }
        fits
    }

    /// Room in this chunk or in a new one.
    #[cold]
    fn make_room(&mut self, size: usize) -> bool {
        self.has_room(size) || (self.add_chunk() && self.has_room(size))
    }

    /// True if there is room for this in the chunk, of which more is made usable if need be.
    fn has_room(&mut self, size: usize) -> bool {
        let missing = size.saturating_sub(self.ready.addr() - self.next.addr());
        if missing == 0 || self.end.addr() - self.ready.addr() < missing {
            return missing == 0;
        }
        let more = missing.next_multiple_of(self.stride).min(self.end.addr() - self.ready.addr());
        // A kernel older than 5.14 does not know the advice; then there is a fault for each page, and nothing else.
        // SAFETY: the area is ours, and nothing is in it yet.
        unsafe { libc::madvise(self.ready.cast(), more, libc::MADV_POPULATE_WRITE) };
        self.ready = self.ready.wrapping_add(more);
        true
    }

    fn add_chunk(&mut self) -> bool {
        let chunk = map(CHUNK);
        if chunk.is_null() {
            return false;
        }
        let link: *mut Link = chunk.cast();
        // SAFETY: the area is ours, large enough and aligned.
        unsafe { link.write(Link { next: self.chunks }) };
        self.chunks = link;
        self.next = chunk.wrapping_add(GRAIN);
        self.ready = chunk.wrapping_add(PAGE);
        self.end = chunk.wrapping_add(CHUNK);
        true
    }

    /// Goes on in a new chunk, and uses nothing again of those before.
    fn leave(&mut self) {
        if !self.chunks.is_null() {
            self.left = self.chunks;
            self.lists = [null_mut(); LISTS];
            (self.next, self.ready, self.end) = (null_mut(), null_mut(), null_mut());
            self.stride = SHORT_STRIDE;
        }
    }
}

impl State {
    /// Unmaps the chunks that were left, and what is mapped on its own but for the piece that is kept.
    fn give_left_back(&mut self, kept: *const u8) {
        for single in self.single.all().iter().filter(|single| !std::ptr::eq(single.place, kept)) {
            // SAFETY: it was mapped with this size, and the caller vouches that it is not used any more.
            unsafe { libc::munmap(single.place.cast(), single.size) };
        }
        self.single.count = 0;
        let mut chunk = std::mem::replace(&mut self.left, null_mut());
        let mut newest = self.chunks;
        while !newest.is_null() && newest != chunk {
            // SAFETY: every chunk begins with a link, and this one is in the list, before those that were left.
            let link = unsafe { &mut *newest };
            newest = link.next;
            if newest == chunk {
                link.next = null_mut();
            }
        }
        while !chunk.is_null() {
            // SAFETY: as above.
            let next = unsafe { (*chunk).next };
            // SAFETY: the chunk was mapped with this size, and the caller vouches that nothing in it is used any more.
            unsafe { libc::munmap(chunk.cast(), CHUNK) };
            chunk = next;
        }
        self.stride = PAGE;
    }
}

/// Makes a mapping larger or smaller, perhaps elsewhere; null if that cannot be done.
fn remap(place: *mut u8, from: usize, to: usize) -> *mut u8 {
    // SAFETY: the callers vouch for the old size, and forget the old place.
    let moved = unsafe { libc::mremap(place.cast(), from, to, libc::MREMAP_MAYMOVE) };
    if moved == libc::MAP_FAILED { null_mut() } else { moved.cast() }
}

/// New memory of the kernel's, or null.
fn map(size: usize) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place that the kernel chooses.
    let place = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    if place == libc::MAP_FAILED { null_mut() } else { place.cast() }
}

// SAFETY: a piece is as large as its layout asks and aligned to 16 bytes or, mapped on its own, to a page; what asks for more gets null.
// A piece is handed out once until it is given back, with the same layout, from which its size and its list follow.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some((size, list)) => HEAP.with(|heap| heap.take(size, list)),
            None if layout.align() <= PAGE => {
                let place = map(layout.size());
                HEAP.with(|heap| heap.single.add(place, layout.size()));
                place
            }
            None => null_mut(),
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match class(layout) {
            Some((size, list)) => HEAP.with(|heap| heap.give(piece, size, list)),
            None => {
                HEAP.with(|heap| heap.single.change(piece, None));
                // SAFETY: it was mapped with this size, and the caller gives it back.
                unsafe { libc::munmap(piece.cast(), layout.size()) };
            }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for the new size, as GlobalAlloc asks.
        let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (class(layout), class(wanted)) {
            (Some((_, old)), Some((_, new))) if old == new => return piece,
            (Some((from, _)), Some((to, _))) if HEAP.with(|heap| heap.extend(piece, from, to)) => return piece,
            (None, None) => {
                return HEAP.with(|heap| {
                    let moved = remap(piece, layout.size(), new_size);
                    if !moved.is_null() {
                        heap.single.change(piece, Some(Single { place: moved, size: new_size }));
                    }
                    moved
                });
            }
            _ => {}
        }
        // SAFETY: as above.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both pieces are at least this large, and the new one is nobody else's.
            unsafe { std::ptr::copy_nonoverlapping(piece, new, layout.size().min(new_size)) };
            // SAFETY: the caller hands the old piece over.
            unsafe { self.dealloc(piece, layout) };
        }
        new
    }
}

/// Leaves all memory that is in use as it is, up to now and in both processes if this one is about to be copied: what is given back of it
/// is not used again, because writing to a page that a parent and its child have in common makes the kernel copy it.
pub fn leave() {
    HEAP.with(State::leave);
}

/// Gives all memory back and goes on with a copy of `message` alone: for a process that is to wait for long with nothing.
///
/// The one that is called gets what it needs as an argument and never returns, so that nothing that was in the old memory can be reached: the
/// callers' frames are never seen again, and statics own no memory. (The standard library's do where something is printed or a thread
/// asks for its own handle; the process that calls this must have done neither. It must have one thread.)
///
/// Without this heap as the allocator it only calls.
pub fn start_over(message: &[u8], fds: [BorrowedFd<'_>; 2], go_on: fn(&[u8], [OwnedFd; 2]) -> !) -> ! {
    leave();
    let copy = message.to_vec();
    HEAP.with(|heap| heap.give_left_back(copy.as_ptr()));
    give_stack_back();
    // SAFETY: whoever owned the descriptor until now is never reached again and does not close it.
    let fds = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) });
    go_on(&copy, fds)
}

/// How much of the stack may have been used and is given back.
const STACK: usize = 256 * 1024;

/// Gives the pages back on which the stack was deeper before.
pub fn give_stack_back() {
    let here = 0_u8;
    // The page that this frame begins on and the next one, for the call itself, stay.
    let end = ((&raw const here).addr() & !(PAGE - 1)) - PAGE;
    // Where the stack never was there is nothing mapped, and the kernel says so after it has done the rest.
    // SAFETY: below the frames that are in use nothing on the stack is alive; it begins more than STACK below the limit of mappings.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(end - STACK), STACK, libc::MADV_DONTNEED) };
}
