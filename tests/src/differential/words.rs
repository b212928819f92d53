//! Random words: names, patterns, values with variables.

use fastrand::Rng;

/// Names of files and directories. Few, so that what instructions name is often there.
const NAMES: [&str; 14] =
    ["a", "b", "c", "d", "a.txt", "b.txt", "c.log", ".hid", "sub", "lib", "x.y.z", "[b]", "é", "Z"];

/// Names of variables.
pub const VARIABLES: [&str; 6] = ["A", "B", "C", "foo", "PATH2", "_x"];

/// One of them.
pub fn pick<'a, T: ?Sized>(random: &mut Rng, of: &[&'a T]) -> &'a T {
    of[random.usize(..of.len())]
}

/// True so many times in a hundred.
pub fn chance(random: &mut Rng, percent: u8) -> bool {
    random.u8(..100) < percent
}

/// The name of a file or a directory.
pub fn name(random: &mut Rng) -> String {
    pick(random, &NAMES).to_owned()
}

/// A relative path of one to three names.
pub fn path(random: &mut Rng) -> String {
    let depth = 1 + usize::from(chance(random, 40)) + usize::from(chance(random, 15));
    (0..depth).map(|_| name(random)).collect::<Vec<_>>().join("/")
}

/// A mode of a file or a directory, as `chmod` of the shell takes it.
pub fn mode(random: &mut Rng) -> u32 {
    const MODES: [u32; 10] =
        [0o644, 0o755, 0o600, 0o700, 0o444, 0o777, 0o640, 0o1777, 0o2755, 0o4711];
    MODES[random.usize(..MODES.len())]
}

/// A pattern that may match a path: its names with some characters replaced.
pub fn pattern(random: &mut Rng, path: &str) -> String {
    let one = |random: &mut Rng, name: &str| -> String {
        let some = name.chars().next().unwrap_or('a');
        // Where a class is not closed, or a range ends before it begins, BuildKit differs by where the
        // files come from.
        let some = if some == '[' || some > 'z' { 'a' } else { some };
        match random.u8(..9) {
            0 | 1 => "*".to_owned(),
            2 => format!("{some}*"),
            3 => format!("[{some}-z]*"),
            4 => "?".to_owned(),
            5 => format!("*{}", name.chars().last().unwrap_or('a')),
            6 => name.replacen(some, "?", 1),
            7 => format!("[^{some}]*"),
            _ => name.to_owned(),
        }
    };
    path.split('/').map(|name| one(random, name)).collect::<Vec<_>>().join("/")
}

/// A pattern as `.dockerignore` and `--exclude` have them.
pub fn excluding(random: &mut Rng, path: &str) -> String {
    let body = match random.u8(..10) {
        0 => format!("**/{}", path.rsplit('/').next().unwrap_or(path)),
        1 => format!("{}/**", path.split('/').next().unwrap_or(path)),
        2 => format!("**/{}", pattern(random, path.rsplit('/').next().unwrap_or(path))),
        3 => format!("/{path}"),
        4 => format!("{path}/"),
        5 => format!("./{path}"),
        6 | 7 => pattern(random, path),
        8 => (*pick(random, &["*", "**", "*/*", "**/*.txt", "?", ".", "a/../b", "**/.*", "[a-c]"]))
            .to_owned(),
        _ => path.to_owned(),
    };
    if chance(random, 25) { format!("!{body}") } else { body }
}

/// A reference to a variable; `full` has the forms that only newer front ends know.
pub fn reference(random: &mut Rng, full: bool) -> String {
    let name = pick(random, &VARIABLES);
    let kinds = if full { 13 } else { 6 };
    match random.u8(..kinds) {
        0 | 1 => format!("${name}"),
        2 | 3 => format!("${{{name}}}"),
        4 => format!("${{{name}:-{}}}", plain(random)),
        5 => format!("${{{name}:+{}}}", plain(random)),
        6 => format!("${{{name}#{}}}", part(random)),
        7 => format!("${{{name}##{}}}", part(random)),
        8 => format!("${{{name}%{}}}", part(random)),
        9 => format!("${{{name}%%{}}}", part(random)),
        10 => format!("${{{name}/{}/{}}}", part(random), plain(random)),
        11 => format!("${{{name}//{}/{}}}", part(random), plain(random)),
        _ => match random.u8(..4) {
            0 => format!("${{{name}-{}}}", plain(random)),
            1 => format!("${{{name}+${name}}}"),
            2 => format!("${{{name}:-${{B}}{}}}", plain(random)),
            _ => format!("${{{name}:?{}}}", plain(random)),
        },
    }
}

/// A pattern within `${…}`.
fn part(random: &mut Rng) -> String {
    (*pick(random, &["*", "?", "a", "v*", "*1", "a*b", "/", "\\*", "*a*", "[a]", "v?", "."]))
        .to_owned()
}

/// A word without variables, quotes or spaces.
pub fn plain(random: &mut Rng) -> String {
    (*pick(random, &["v1", "v2", "aab", "a/b", "1", "80", "x.y", "é", "a-b", "q_r", "a=b"]))
        .to_owned()
}

/// A value as ENV, ARG and LABEL have them on the right side of `=`: plain, quoted, with escapes
/// and variables.
pub fn value(random: &mut Rng, full: bool) -> String {
    let simple = |random: &mut Rng| {
        if chance(random, 40) { reference(random, full) } else { plain(random) }
    };
    match random.u8(..12) {
        0..=3 => simple(random),
        4 => format!("{}{}", plain(random), reference(random, full)),
        5 => format!("\"{} {}\"", simple(random), simple(random)),
        6 => format!("'{} {}'", simple(random), plain(random)),
        7 => format!("{}\\ {}", plain(random), simple(random)),
        8 => format!("\"\\${}\"", plain(random)),
        9 => format!("\\{}", reference(random, full)),
        10 => (*pick(
            random,
            &["\"\"", "''", "\"a\\\"b\"", "'a\\b'", "a\\\\b", "\"a'b\"", "\"\\a\"", "x\"y\"'z'"],
        ))
        .to_owned(),
        _ => format!("{}\"{}\"", plain(random), reference(random, full)),
    }
}

/// A keyword in one of the ways that people write them.
pub fn keyword(random: &mut Rng, of: &str) -> String {
    match random.u8(..12) {
        0 => of.to_lowercase(),
        1 => of[..1].to_owned() + &of[1..].to_lowercase(),
        _ => of.to_owned(),
    }
}
