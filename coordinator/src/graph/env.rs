//! Variables, in the order of their first setting.

use std::collections::BTreeMap;

/// Names and values. Asking for one does not take longer the more there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    list: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
    bytes: usize,
}

impl Env {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.list[*place].1.as_str())
    }

    /// Sets a variable: in its place when it is there, else at the end.
    pub fn set(&mut self, name: &str, value: &str) {
        self.bytes += value.len();
        match self.places.get(name) {
            Some(place) => {
                let old = &mut self.list[*place].1;
                self.bytes -= old.len();
                value.clone_into(old);
            }
            None => {
                self.bytes += name.len() + size_of::<(String, String)>();
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Takes a variable away, if it is there. Takes longer the more there are.
    pub fn remove(&mut self, name: &str) {
        let Some(place) = self.places.remove(name) else { return };
        let (name, value) = self.list.remove(place);
        self.bytes -= name.len() + value.len() + size_of::<(String, String)>();
        self.places.values_mut().filter(|other| **other > place).for_each(|other| *other -= 1);
    }

    /// All variables, in order.
    pub fn list(&self) -> &[(String, String)] {
        &self.list
    }

    /// About how many bytes of memory a copy takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_place() {
        let mut env = Env::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "");
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(env.list(), [pair("A", ""), pair("B", "2")]);
        assert_eq!((env.get("A"), env.get("B"), env.get("C")), (Some(""), Some("2"), None));
        assert_eq!(env.bytes(), 3 + 2 * size_of::<(String, String)>());
        env.remove("A");
        env.remove("C");
        env.set("D", "4");
        assert_eq!(env.list(), [pair("B", "2"), pair("D", "4")]);
        assert_eq!((env.get("A"), env.get("B"), env.get("D")), (None, Some("2"), Some("4")));
        assert_eq!(env.bytes(), 4 + 2 * size_of::<(String, String)>());
    }
}
