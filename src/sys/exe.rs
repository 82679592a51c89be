//! Changing the file that this process is an execution of, without executing it: `PR_SET_MM_EXE_FILE` (prctl(2)).
//!
//! The kernel demands that no part of the old file is mapped any more. The program's own segments are therefore mapped anew, in
//! place, from another descriptor of the *same* file: the bytes are identical, so the code that does it goes on undisturbed.
//! Segments that have been written to (data, and what was relocated) are copied into anonymous memory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use super::fs::{openat, read_record};
use super::{At, CallError, CallResult, c_path, check, check_fd};

/// One loaded segment of this program.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// First page, inclusive.
    start: usize,
    /// Last page that is backed by the file, exclusive.
    end: usize,
    /// Place of the first page in the file.
    offset: u64,
    flags: u32,
}

const PAGE: usize = 4096;

fn page_down(address: usize) -> usize {
    address & !(PAGE - 1)
}

fn page_up(address: usize) -> usize {
    page_down(address + PAGE - 1)
}

/// An address as the kernel sees it.
fn address(value: u64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

/// The program headers of this process (getauxval(3)).
fn headers() -> &'static [libc::Elf64_Phdr] {
    // SAFETY: getauxval has no precondition.
    let place = unsafe { libc::getauxval(libc::AT_PHDR) };
    // SAFETY: getauxval has no precondition.
    let count = unsafe { libc::getauxval(libc::AT_PHNUM) };
    if place == 0 {
        return &[];
    }
    // SAFETY: the kernel has mapped this table with the program; it stays for the life of the process and is never written to.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address(place)), address(count)) }
}

/// What the program was loaded at: the difference between addresses and those in the file.
fn base(headers: &'static [libc::Elf64_Phdr]) -> Option<usize> {
    let table = headers.iter().find(|header| header.p_type == libc::PT_PHDR)?;
    (headers.as_ptr().expose_provenance()).checked_sub(address(table.p_vaddr))
}

fn segments(headers: &[libc::Elf64_Phdr], base: usize) -> Vec<Segment> {
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_filesz > 0);
    let segment = |header: &libc::Elf64_Phdr| {
        let first = base + address(header.p_vaddr);
        let slack = first - page_down(first);
        Segment {
            start: page_down(first),
            end: page_up(first + address(header.p_filesz)),
            offset: header.p_offset - slack as u64,
            flags: header.p_flags,
        }
    };
    loaded.map(segment).collect()
}

fn protection(flags: u32) -> i32 {
    let bit = |flag: u32, protection: i32| if flags & flag != 0 { protection } else { 0 };
    bit(libc::PF_R, libc::PROT_READ) | bit(libc::PF_W, libc::PROT_WRITE) | bit(libc::PF_X, libc::PROT_EXEC)
}

/// Makes `file`, a descriptor of the file that this process runs from but reached through another mount, the process's executable.
///
/// The process must have one thread. On failure the process goes on as it was, perhaps with some of its segments mapped from `file`.
///
/// # Errors
/// The kernel's: `EPERM` without CAP_SYS_RESOURCE and CAP_CHECKPOINT_RESTORE.
pub fn replace(file: impl AsFd) -> CallResult<()> {
    let fd = file.as_fd().as_raw_fd();
    let headers = headers();
    let base = base(headers).ok_or_else(|| CallError::new("getauxval", "AT_PHDR", libc::ENOEXEC))?;
    for segment in segments(headers, base) {
        if segment.flags & libc::PF_W == 0 { map_again(segment, fd)? } else { copy_out(segment)? }
    }
    protect_relocated(headers, base)?;
    set_exe_file(fd)
}

/// openat(2) of what may make the caller wait for days, a fifo: the memory of the program's code and constants is given back before. What is
/// needed again is mapped again from its file, sixteen pages at a time; so whatever the call needs is prepared, and nothing but this function
/// and the C library's two wrappers runs from then on.
///
/// # Errors
/// The kernel's.
#[inline(never)]
pub fn open_without_code(at: At<'_>, path: &Path, flags: i32) -> CallResult<OwnedFd> {
    let name = c_path("openat", path)?;
    let headers = headers();
    let mut segments = base(headers).map(|base| segments(headers, base)).unwrap_or_default();
    segments.retain(|segment| segment.flags & libc::PF_W == 0);
    for segment in &segments {
        let place = std::ptr::with_exposed_provenance_mut(segment.start);
        // SAFETY: the mapping is of a file and was never written to: a page that is read again has the bytes that it had. If it cannot be
        // given back, it stays.
        let _ = unsafe { libc::madvise(place, segment.end - segment.start, libc::MADV_DONTNEED) };
    }
    loop {
        // SAFETY: `name` outlives the call.
        let ret = unsafe { libc::openat(at.raw(), name.as_ptr(), flags | libc::O_CLOEXEC) };
        match check_fd(ret, "openat", || format!("{at}, {path:?}, {flags:#o}")) {
            Err(error) if error.is(libc::EINTR) => {}
            other => return other,
        }
    }
}

/// Maps a segment that is never written to from the other descriptor, over itself.
fn map_again(segment: Segment, fd: i32) -> CallResult<()> {
    let (len, flags) = (segment.end - segment.start, libc::MAP_PRIVATE | libc::MAP_FIXED);
    let place = std::ptr::with_exposed_provenance_mut(segment.start);
    let offset = segment.offset.cast_signed();
    // SAFETY: the new mapping has the same bytes, place and protection as the one that it replaces in one step of the kernel, so
    // neither running code nor a reference into it can notice. One thread: nothing else runs meanwhile.
    let ret = unsafe { libc::mmap(place, len, protection(segment.flags), flags, fd, offset) };
    mapped(ret)
}

/// Moves a copy of a segment in anonymous memory over it.
fn copy_out(segment: Segment) -> CallResult<()> {
    let (len, rw) = (segment.end - segment.start, libc::PROT_READ | libc::PROT_WRITE);
    // All of it is written to at once: its pages are made in this call, not by a fault each.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new anonymous mapping at a place that the kernel chooses.
    let copy = unsafe { libc::mmap(std::ptr::null_mut(), len, rw, flags, -1, 0) };
    mapped(copy)?;
    let source: *const u8 = std::ptr::with_exposed_provenance(segment.start);
    // SAFETY: both areas have this length and do not overlap; the segment is readable as a whole.
    unsafe { std::ptr::copy_nonoverlapping(source, copy.cast(), len) };
    let place: *mut libc::c_void = std::ptr::with_exposed_provenance_mut(segment.start);
    // SAFETY: the copy has the same bytes as what it replaces in one step of the kernel; between the copy and this call nothing writes to
    // static data: one thread, and neither call has state there (errno is thread-local, on the heap of a static program).
    let ret = unsafe { libc::mremap(copy, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, place) };
    mapped(ret)
}

fn mapped(ret: *mut libc::c_void) -> CallResult<()> {
    if ret == libc::MAP_FAILED { Err(CallError::last("mmap", "own segment")) } else { Ok(()) }
}

/// What was relocated at the start is read-only again (PT_GNU_RELRO).
fn protect_relocated(headers: &[libc::Elf64_Phdr], base: usize) -> CallResult<()> {
    let Some(relro) = headers.iter().find(|header| header.p_type == libc::PT_GNU_RELRO) else { return Ok(()) };
    let start = page_down(base + address(relro.p_vaddr));
    let end = page_down(base + address(relro.p_vaddr) + address(relro.p_memsz));
    // SAFETY: the area is part of a segment of ours and was read-only before.
    let ret = unsafe { libc::mprotect(std::ptr::with_exposed_provenance_mut(start), end - start, libc::PROT_READ) };
    check(ret.into(), "mprotect", || "PT_GNU_RELRO").map(drop)
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
#[derive(Default)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

const PR_SET_MM: i32 = 35;
const PR_SET_MM_EXE_FILE: u64 = 13;
const PR_SET_MM_MAP: u64 = 14;

/// With CAP_SYS_RESOURCE in one call; with CAP_CHECKPOINT_RESTORE by setting the whole map to what it is.
fn set_exe_file(fd: i32) -> CallResult<()> {
    // SAFETY: integer arguments only.
    let ret = unsafe { libc::prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, u64::from(fd.cast_unsigned()), 0, 0) };
    if ret == 0 {
        return Ok(());
    }
    let map = current_map(fd)?;
    let size = size_of_val(&map) as u64;
    // SAFETY: the structure outlives the call and has the given size.
    let ret = unsafe { libc::prctl(PR_SET_MM, PR_SET_MM_MAP, &raw const map, size, 0) };
    check(ret.into(), "prctl", || "PR_SET_MM, PR_SET_MM_MAP").map(drop)
}

/// The map as it is, from proc_pid_stat(5).
fn current_map(fd: i32) -> CallResult<MemoryMap> {
    let stat = openat(At::Cwd, Path::new("/proc/self/stat"), libc::O_RDONLY, 0)?;
    let text = String::from_utf8_lossy(&read_record(&stat)?).into_owned();
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    // The first field after the name is number 3.
    let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    // SAFETY: sbrk(0) only reads.
    let brk = unsafe { libc::sbrk(0) };
    Ok(MemoryMap {
        start_code: field(26),
        end_code: field(27),
        start_stack: field(28),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        brk: brk.expose_provenance() as u64,
        arg_start: field(48),
        arg_end: field(49),
        env_start: field(50),
        env_end: field(51),
        exe_fd: fd.cast_unsigned(),
        ..MemoryMap::default()
    })
}
