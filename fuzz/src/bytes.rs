//! Choices out of bytes: whatever they are, they mean something, and when they are used up everything is zero.

/// What is left of an input.
pub struct Bytes<'a> {
    left: &'a [u8],
}

impl<'a> Bytes<'a> {
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self { left: data }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.left.split_first() {
            Some((first, rest)) => {
                self.left = rest;
                *first
            }
            None => 0,
        }
    }

    /// One of `count`, which is not zero.
    pub fn below(&mut self, count: u8) -> u8 {
        self.byte() % count
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A piece with its length in front, two bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.short()).min(self.left.len());
        let (piece, rest) = self.left.split_at(length);
        self.left = rest;
        piece
    }
}
