//! The simulator's own small generator: for the disk, the fleet and the faults, apart from the engines' generators so
//! that drawing from one does not move the others.

/// SplitMix64: one word of state, the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct SplitMix(u64);

impl SplitMix {
    /// `purpose` keeps generators of one seed apart.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut generator = Self(seed ^ purpose.rotate_left(32));
        generator.draw();
        generator
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` (included) to `high` (excluded); `low` when the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        low + self.draw() % (high - low)
    }

    /// True once in `n` calls.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.between(0, n) == 0
    }
}
