//! Leaves out of a case what buildah does otherwise than BuildKit on purpose, or did in the version that
//! Debian has; docs/dockerfile.md lists it. The case is made first: a seed's draws are the same in each
//! language.

use super::super::case::{Case, Instruction, Node};

/// The case without what only one of both understands, or both differently.
pub(super) fn only(mut case: Case) -> Case {
    texts(&mut case).for_each(without_brackets);
    case.context.iter_mut().for_each(without_set_ids);
    // Of a directory that is left out, BuildKit looks for what is not.
    case.ignore.retain(|line| !line.starts_with('!'));
    // A variable that is set again moves to the end.
    let mut seen = Vec::new();
    case.dockerfile.retain(|instruction| {
        let names = variables(instruction);
        let again = names.iter().any(|name| seen.contains(name));
        seen.extend(names);
        !again
    });
    let about = About::of(&case);
    let last = case.dockerfile.iter().rposition(|instruction| parts(instruction).0 == "FROM");
    let (before, stage) = case.dockerfile.split_at(last.unwrap_or_default());
    // In BuildKit a stage has the ARGs of the stage that it begins with.
    let before = before.iter().filter(|instruction| parts(instruction).0 != "ARG");
    let all = before.chain(stage).filter(|instruction| !about.differs(instruction));
    case.dockerfile = all.cloned().collect();
    // Stages have names alone.
    if case.flags.last().is_some_and(|target| target.parse::<usize>().is_ok()) {
        case.flags.truncate(case.flags.len() - 2);
    }
    // What containers are given, and what of it stays.
    let given = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    case.not_compared.extend(given.map(str::to_owned));
    // BuildKit's mark at each CMD.
    case.not_configured.push("ArgsEscaped".to_owned());
    case
}

/// All of its texts that may name files.
fn texts(case: &mut Case) -> impl Iterator<Item = &mut String> {
    let words = case.dockerfile.iter_mut().flat_map(|instruction| &mut instruction.words);
    let nodes = case.context.iter_mut().flat_map(|node| match node {
        Node::Directory { path, .. } | Node::Fifo { path } => vec![path],
        Node::File { path, text, .. } => vec![path, text],
        Node::Link { path, to } => vec![path, to],
        Node::Archive { path, of, .. } => vec![path, of],
    });
    words.chain(nodes).chain(&mut case.ignore)
}

/// What a pattern finds is not found again, if its name is one.
fn without_brackets(text: &mut String) {
    *text = text.replace("[b]", "n");
}

/// Files of a context lose these bits.
fn without_set_ids(node: &mut Node) {
    if let Node::Directory { mode, .. } | Node::File { mode, .. } = node {
        *mode &= 0o1777;
    }
}

/// Its keyword, in capitals, and the words after that; of an ONBUILD those of its trigger.
fn parts(instruction: &Instruction) -> (String, &[String]) {
    let (first, words) = instruction.words.split_first().expect("the keyword is there");
    match (first.to_uppercase(), words.split_first()) {
        (keyword, Some((trigger, words))) if keyword == "ONBUILD" => {
            (trigger.to_uppercase(), words)
        }
        (keyword, _) => (keyword, words),
    }
}

/// The name of a variable that is set.
fn name(word: &str) -> &str {
    word.split('=').next().unwrap_or_default()
}

/// The names that an ENV sets.
fn variables(instruction: &Instruction) -> Vec<String> {
    match parts(instruction) {
        (keyword, words) if keyword == "ENV" => {
            words.iter().map(|word| name(word).to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

/// What there is in a case.
struct About {
    /// The variables that an ENV sets.
    set: Vec<String>,
    /// Whether the context has links.
    links: bool,
    /// Whether the context has archives.
    archives: bool,
    /// Whether a stage begins with nothing.
    scratch: bool,
}

impl About {
    fn of(case: &Case) -> Self {
        let begins_with_nothing = |instruction: &Instruction| {
            let (keyword, words) = parts(instruction);
            keyword == "FROM" && words.first().is_some_and(|base| base == "scratch")
        };
        Self {
            set: case.dockerfile.iter().flat_map(variables).collect(),
            links: case.context.iter().any(|node| matches!(node, Node::Link { .. })),
            archives: case.context.iter().any(|node| matches!(node, Node::Archive { .. })),
            scratch: case.dockerfile.iter().any(begins_with_nothing),
        }
    }

    fn differs(&self, instruction: &Instruction) -> bool {
        let (keyword, words) = parts(instruction);
        match keyword.as_str() {
            // What is written into a volume after its VOLUME is lost.
            "VOLUME" => true,
            // It counts for RUN alone.
            "SHELL" => true,
            // ENV wins over ARG, whichever comes later.
            "ARG" => words.iter().any(|word| self.set.iter().any(|other| other == name(word))),
            // Neither ranges nor mistakes are seen.
            "EXPOSE" => {
                !words.iter().all(|word| ["80", "80/udp", "443/tcp"].contains(&word.as_str()))
            }
            // What writes into a pipe waits for ever.
            "RUN" => words.iter().any(|word| word.contains("mkfifo")),
            // The way to a place is not made, if it leads back.
            "WORKDIR" => words.iter().any(|word| word.contains("..")),
            // What an archive says of its own root is taken over.
            "ADD" if self.archives => true,
            "COPY" | "ADD" => self.copies_otherwise(words),
            _ => false,
        }
    }

    /// Whether what is copied, to where or whose it becomes is said in a way that buildah takes otherwise.
    fn copies_otherwise(&self, words: &[String]) -> bool {
        let is_flag = |word: &&String| word.starts_with("--");
        // Owners that the image does not know are refused.
        let named = |owner: &str| owner.contains(|c: char| c.is_alphabetic() || c == '$');
        let unknown = |flag: &String| {
            let owner = flag.strip_prefix("--chown=");
            owner.is_some_and(|owner| owner == "no:no" || self.scratch && named(owner))
        };
        let owner = words.iter().take_while(is_flag).any(unknown);
        let places: Vec<&String> = words.iter().skip_while(is_flag).collect();
        let Some((to, sources)) = places.split_last() else { return false };
        // So are patterns that find nothing, or a link to nothing, and ways out of the context.
        let odd = |source: &&String| {
            let pattern = source.contains(['*', '?', '[', ']']);
            source.starts_with("../") || pattern && (self.links || source.as_str() != "*")
        };
        let many = sources.len() > 1 && !to.ends_with('/');
        // A way back is not gone, and this end is not seen.
        let place = to.contains("..") || to.ends_with("/.");
        owner || many || place || sources.iter().any(odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Case {
        let instruction = |line: &&str| {
            let mut words = line.split(' ').map(str::to_owned);
            Instruction::line(&words.next().expect("a keyword"), words)
        };
        Case { dockerfile: lines.iter().map(instruction).collect(), ..Case::default() }
    }

    #[test]
    fn what_buildah_takes_otherwise_is_left_out() {
        let mut case = of(&[
            "FROM base",
            "ARG B=1",
            "COPY [b] x /d/",
            "COPY a x /d",
            "COPY --chown=no:no a /d",
            "onbuild VOLUME /v",
            "FROM base",
            "ARG A=1",
            "ARG C",
            "ENV A=2",
            "CMD [\"echo\"]",
            "EXPOSE 80",
            "EXPOSE 1-3",
        ]);
        case.context =
            vec![Node::File { path: "[b]".to_owned(), mode: 0o4755, text: String::new() }];
        case.flags = ["--build-arg", "C=1", "--target", "0"].map(str::to_owned).to_vec();
        let left = only(case);
        let kept = ["FROM base", "COPY n x /d/", "FROM base", "ARG C", "ENV A=2", "CMD [\"echo\"]"];
        assert_eq!(left.text().lines().collect::<Vec<_>>(), [&kept[..], &["EXPOSE 80"]].concat());
        let file = Node::File { path: "n".to_owned(), mode: 0o755, text: String::new() };
        assert_eq!(
            (left.context, left.flags),
            (vec![file], vec!["--build-arg".to_owned(), "C=1".to_owned()])
        );
    }

    #[test]
    fn patterns_are_for_contexts_without_links() {
        let mut case = of(&["FROM base", "COPY * /d/"]);
        assert_eq!(only(case.clone()).dockerfile.len(), 2);
        case.context.push(Node::Link { path: "l".to_owned(), to: "nowhere".to_owned() });
        assert_eq!(only(case).dockerfile.len(), 1);
    }
}
