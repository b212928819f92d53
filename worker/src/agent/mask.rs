//! Secrets are taken out of what steps write. Pure.

/// Shorter secrets are no secrets, and would riddle every log.
const LENGTH_MIN: usize = 8;

/// What stands in a secret's place.
const MASK: &[u8] = b"****";

/// Takes secrets out of a stream of bytes, wherever its pieces are cut.
#[derive(Clone)]
pub struct Mask {
    secrets: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Mask {
    /// For these secrets. Spaces at the ends do not count: files end with a newline.
    pub fn new<'s>(secrets: impl Iterator<Item = &'s [u8]>) -> Self {
        let trimmed = secrets.map(<[u8]>::trim_ascii).filter(|s| s.len() >= LENGTH_MIN);
        let mut secrets: Vec<Vec<u8>> = trimmed.map(<[u8]>::to_vec).collect();
        // Of two that begin at the same place the longer one is taken.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        secrets.dedup();
        Self { secrets, held: Vec::new() }
    }

    /// What can be shown now that `data` is there too.
    pub fn push(&mut self, data: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() {
            return data.to_vec();
        }
        self.held.extend_from_slice(data);
        let (mut shown, mut at) = (Vec::with_capacity(self.held.len()), 0);
        while at < self.held.len() {
            let rest = &self.held[at..];
            if let Some(secret) = self.secrets.iter().find(|s| rest.starts_with(s)) {
                shown.extend_from_slice(MASK);
                at += secret.len();
            } else if self.secrets.iter().any(|s| s.starts_with(rest)) {
                // It may become one with what comes next.
                break;
            } else {
                shown.push(rest[0]);
                at += 1;
            }
        }
        self.held.drain(..at);
        shown
    }

    /// A text by itself.
    pub fn whole(&self, text: &[u8]) -> Vec<u8> {
        let mut own = Self { held: Vec::new(), ..self.clone() };
        let mut shown = own.push(text);
        shown.extend(own.finish());
        shown
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(secrets: &[&[u8]], pieces: &[&[u8]]) -> Vec<u8> {
        let mut mask = Mask::new(secrets.iter().copied());
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| mask.push(piece)).collect();
        out.extend(mask.finish());
        out
    }

    #[test]
    fn secrets_are_masked_wherever_the_stream_is_cut() {
        let secret: &[u8] = b"hunter2-hunter3\n";
        assert_eq!(all(&[secret], &[b"a hunter2-hun", b"ter3 b"]), b"a **** b");
        assert_eq!(all(&[secret], &[b"a hunter2-hun", b"dred"]), b"a hunter2-hundred");
        assert_eq!(all(&[b"short"], &[b"a short one"]), b"a short one");
        assert_eq!(all(&[secret, b"hunter2-"], &[b"hunter2-hunter3 hunter2-"]), b"**** ****");
    }

    proptest! {
        #[test]
        fn a_cut_changes_nothing(text in "[ab]{0,40}", cut in 0usize..40) {
            let secrets: &[&[u8]] = &[b"abababab", b"aabbaabbaa"];
            let cut = cut.min(text.len());
            let (left, right) = text.as_bytes().split_at(cut);
            prop_assert_eq!(all(secrets, &[left, right]), all(secrets, &[text.as_bytes()]));
        }
    }
}
