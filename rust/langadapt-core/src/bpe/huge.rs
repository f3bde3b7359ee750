//! Tables in huge pages.
//!
//! Tables of several megabytes that are read at random places miss the address cache of the processor at nearly every
//! read where pages have 4 KiB. Linux gives pages of 2 MiB to memory that asks for them before it is first touched.

/// `len` times `value`, in huge pages where the system has them.
pub fn filled<T: Clone>(len: usize, value: T) -> Vec<T> {
    let mut table = with_capacity(len);
    table.resize(len, value);
    table
}

/// Room for `len` values, in huge pages where the system has them. What is not touched costs nothing.
pub fn with_capacity<T>(len: usize) -> Vec<T> {
    let mut room = Vec::with_capacity(len);
    ask(room.as_mut_ptr(), room.capacity());
    room
}

#[cfg(target_os = "linux")]
fn ask<T>(start: *mut T, len: usize) {
    const PAGE: usize = 2 << 20;
    let (start, end) = (start as usize, start as usize + len * size_of::<T>());
    let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    if first < last {
        // SAFETY: the range lies inside an allocation of ours, and this advice changes nothing but the size of pages.
        // Whether it is heeded does not matter.
        unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask<T>(_start: *mut T, _len: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_vector_like_others() {
        for len in [0, 1, 1000, 3_000_000] {
            let table = filled(len, 7u32);
            assert_eq!(table.len(), len);
            assert!(table.iter().all(|value| *value == 7));
        }
    }
}
