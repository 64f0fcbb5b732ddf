//! Mutations of an input. One seed, one sequence of them.

/// xorshift64*: small, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `count`; 0 for 0.
    pub fn below(&mut self, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        usize::try_from(self.draw() % count as u64).expect("less than a usize")
    }
}

/// Bytes at which programs stumble.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'"', b'\\'];

/// Changes `data` in one to eight places. `other` is another input to take pieces from, `words` what the target knows.
pub fn mutate(
    data: &mut Vec<u8>,
    random: &mut Random,
    other: &[u8],
    words: &[&str],
    bytes_max: usize,
) {
    for _ in 0..=random.below(8) {
        let at = random.below(data.len() + 1);
        match random.below(10) {
            0 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = EDGES[random.below(EDGES.len())];
                }
            }
            2 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = byte
                        .wrapping_add(u8::try_from(random.below(16)).unwrap_or(1))
                        .wrapping_sub(8);
                }
            }
            3 => data.insert(at, u8::try_from(random.below(256)).unwrap_or(0)),
            4 => {
                let length = 1 + random.below(16);
                let end = (at + length).min(data.len());
                data.drain(at..end);
            }
            5 => data.truncate(at),
            6 => {
                let from = random.below(data.len() + 1);
                let length = random.below(64).min(data.len() - from);
                let piece = data[from..from + length].to_vec();
                data.splice(at..at, piece);
            }
            7 => {
                let from = random.below(other.len() + 1);
                let length = random.below(256).min(other.len() - from);
                data.splice(at..at, other[from..from + length].iter().copied());
            }
            8 => {
                let from = random.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => {
                if !words.is_empty() {
                    let word = words[random.below(words.len())];
                    data.splice(at..at, word.bytes());
                }
            }
        }
    }
    data.truncate(bytes_max);
}
