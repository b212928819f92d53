//! The explicit encoding that identities are hashed from.
//!
//! Lengths and numbers are little-endian, texts and lists carry their length, choices carry a fixed
//! number. Nothing that is hashed ever goes through the encoding of the wire, which promises
//! no canonical bytes.

/// Takes values one by one, into a hash or into bytes.
pub struct Canon<'a> {
    sink: &'a mut dyn FnMut(&[u8]),
}

impl<'a> Canon<'a> {
    /// Writes to `sink`.
    pub fn new(sink: &'a mut dyn FnMut(&[u8])) -> Self {
        Self { sink }
    }

    /// Adds bytes without a length. Only for what has a fixed size.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        (self.sink)(bytes);
        self
    }

    /// Adds the number of a choice.
    pub fn tag(&mut self, tag: u8) -> &mut Self {
        self.raw(&[tag])
    }

    /// Adds a yes or no.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.tag(value as u8)
    }

    /// Adds a number of 16 bits.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a number of 32 bits.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a number of 64 bits.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a signed number of 64 bits.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds bytes with their length.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u64(value.len() as u64).raw(value)
    }

    /// Adds a text with its length.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Adds a list: its length, then each item by `each`.
    pub fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.u64(items.len() as u64);
        items.for_each(|item| each(self, item));
        self
    }

    /// Adds something that may be absent.
    pub fn option<T>(&mut self, value: Option<T>, each: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            each(self, value);
        }
        self
    }
}

/// The hash of what `write` adds, in the domain `domain` (a text that no other use has).
pub fn hash(domain: &str, write: impl FnOnce(&mut Canon<'_>)) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    write(&mut Canon::new(&mut |bytes| {
        hasher.update(bytes);
    }));
    *hasher.finalize().as_bytes()
}

/// Reads what [`Canon`] wrote. Every method answers `None` when the bytes end too early.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len)?;
        self.rest = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }

    /// The number of a choice.
    pub fn tag(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    /// A yes or no; any other byte is refused, so that each value has one encoding.
    pub fn bool(&mut self) -> Option<bool> {
        match self.tag()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// A number of 16 bits.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A signed number of 64 bits.
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// 32 bytes of an id.
    pub fn hash32(&mut self) -> Option<[u8; 32]> {
        self.array()
    }

    /// Bytes with their length.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u64()?;
        self.raw(usize::try_from(len).ok()?)
    }
}
