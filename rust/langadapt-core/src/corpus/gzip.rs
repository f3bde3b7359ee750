//! Gzip files: members one behind the other, and zero bytes behind each, with which tapes and block devices fill up.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The bytes of all members.
pub(super) struct Members<R> {
    /// `None` behind the last.
    member: Option<GzDecoder<R>>,
    /// The member has been read to its end and its checksum was right.
    is_read: bool,
}

impl<R: BufRead> Members<R> {
    pub fn new(input: R) -> Self {
        Self { member: Some(GzDecoder::new(input)), is_read: false }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            if !self.is_read {
                let n = member.read(out)?;
                if n > 0 || out.is_empty() {
                    return Ok(n);
                }
                self.is_read = true;
            }
            let more = skip_zeros(member.get_mut())?;
            self.member = self.member.take().filter(|_| more).map(|member| GzDecoder::new(member.into_inner()));
            self.is_read = false;
        }
    }
}

/// Whether there is anything but zeros; stops before it.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = input.fill_buf()?;
        let (zeros, length) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
        input.consume(zeros);
        if zeros < length || length == 0 {
            return Ok(length > 0);
        }
    }
}
