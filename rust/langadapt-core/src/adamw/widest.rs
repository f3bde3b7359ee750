//! One loop compiled three times: for the plain processor, AVX2 and AVX-512.

/// What is compiled once for each kind of processor.
pub(super) trait Work {
    /// Does it; how many stored weights stayed as they were.
    fn run(self) -> u64;
}

/// By the widest vectors that the processor has.
pub(super) fn widest(work: impl Work) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has these.
        return unsafe { avx512(work) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { avx2(work) };
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn avx512(work: impl Work) -> u64 {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(work: impl Work) -> u64 {
    work.run()
}
