//! Makes the stand-in images before the tests need them, two at a time: `standins [NAME...]`.

use std::sync::Mutex;

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = tests::standin::ALL.iter().rev().map(|name| (*name).to_owned()).collect();
    }
    let names = Mutex::new(names);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(name) = names.lock().expect("no one panics with it").pop() else {
                        return;
                    };
                    tests::standin::storage(&[&name]);
                }
            });
        }
    });
}
