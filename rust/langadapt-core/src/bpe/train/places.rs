//! Lists of places, packed: the differences of ascending cells, seven bits a byte, most of them one byte or two.

/// Bytes of a difference.
#[inline(always)]
pub(super) fn width(gap: u32) -> u32 {
    (38 - (gap | 1).leading_zeros()) / 7
}

/// Ascending places.
#[derive(Debug, Default)]
pub(super) struct Places(Box<[u8]>);

impl Places {
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let mut last = 0;
        let mut bytes = self.0.iter();
        std::iter::from_fn(move || {
            let (mut gap, mut shift) = (0, 0);
            loop {
                let byte = u32::from(*bytes.next()?);
                gap |= (byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
            }
            last += gap;
            Some(last)
        })
    }
}

/// A list that is being written.
#[derive(Debug, Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
    last: u32,
}

impl Packer {
    /// With room for `bytes`.
    pub fn with_capacity(bytes: u32) -> Self {
        Self { bytes: Vec::with_capacity(bytes as usize), last: 0 }
    }

    #[inline(always)]
    pub fn push(&mut self, place: u32) {
        let mut gap = place - self.last;
        self.last = place;
        while gap >= 0x80 {
            self.bytes.push(gap as u8 | 0x80);
            gap >>= 7;
        }
        self.bytes.push(gap as u8);
    }

    /// The list, without a copy where there is no room left.
    pub fn into_places(self) -> Places {
        Places(self.bytes.into_boxed_slice())
    }

    /// A copy of the list.
    pub fn places(&self) -> Places {
        Places(self.bytes.as_slice().into())
    }

    /// Begins anew; a long list's memory is given back.
    pub fn clear(&mut self) {
        const KEPT: usize = 1 << 12;
        self.last = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(gaps in prop::collection::vec(prop_oneof![1u32..300, 1u32..1 << 28], 0..15)) {
            let places: Vec<u32> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut packer = Packer::default();
            for _ in 0..2 {
                packer.clear();
                places.iter().for_each(|&place| packer.push(place));
                prop_assert_eq!(packer.places().iter().collect::<Vec<_>>(), places.clone());
            }
            prop_assert_eq!(packer.bytes.len() as u32, gaps.iter().map(|&gap| width(gap)).sum::<u32>());
            prop_assert_eq!(packer.into_places().iter().collect::<Vec<_>>(), places);
        }
    }
}
