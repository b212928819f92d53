//! Makes a case that differs smaller: delta debugging (Zeller, Hildebrandt: “Simplifying and
//! Isolating Failure-Inducing Input”, 2002) over the case's parts, with all of a round's candidates
//! tried in one run of the builders.

use super::case::{Case, Node};

/// Something that can be left out of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Instruction(usize),
    /// A word of an instruction, by the numbers of both.
    Word(usize, usize),
    Node(usize),
    Ignore(usize),
    Flag(usize),
}

/// The smallest case found: leaving out any one part makes `still` false. `still` says of each of
/// the cases that it gets whether it differs in the way that is looked for.
pub fn minimise(case: Case, mut still: impl FnMut(&[Case]) -> Vec<bool>) -> Case {
    let mut case = case;
    for parts in [whole, words] {
        while let Some(smaller) = round(&case, &parts(&case), &mut still) {
            case = smaller;
        }
    }
    case
}

/// Leaves out as much as can be left out by what single parts show.
fn round(
    case: &Case,
    parts: &[Part],
    still: &mut impl FnMut(&[Case]) -> Vec<bool>,
) -> Option<Case> {
    let singles: Vec<Case> = parts.iter().map(|part| without(case, &[*part])).collect();
    let verdicts = still(&singles);
    let needless: Vec<Part> =
        parts.iter().zip(verdicts).filter(|(_, differs)| *differs).map(|(part, _)| *part).collect();
    let mut count = needless.len();
    while count > 1 {
        let smaller = without(case, &needless[..count]);
        if still(std::slice::from_ref(&smaller))[0] {
            return Some(smaller);
        }
        count /= 2;
    }
    needless.first().map(|part| without(case, &[*part]))
}

/// Instructions, and all that is not the Dockerfile.
fn whole(case: &Case) -> Vec<Part> {
    let instructions = (0..case.dockerfile.len()).map(Part::Instruction);
    let nodes = (0..case.context.len()).map(Part::Node);
    let ignore = (0..case.ignore.len()).map(Part::Ignore);
    let flags = (0..case.flags.len()).step_by(2).map(Part::Flag);
    instructions.chain(nodes).chain(ignore).chain(flags).collect()
}

/// The words after each keyword.
fn words(case: &Case) -> Vec<Part> {
    let of = |(at, count): (usize, usize)| (1..count).map(move |word| Part::Word(at, word));
    case.dockerfile
        .iter()
        .map(|instruction| instruction.words.len())
        .enumerate()
        .flat_map(of)
        .collect()
}

/// The case without some parts. Nodes that are below one that is left out go, too.
fn without(case: &Case, parts: &[Part]) -> Case {
    let keep = |part: Part| !parts.contains(&part);
    let gone: Vec<&str> = case
        .context
        .iter()
        .enumerate()
        .filter(|(at, _)| !keep(Part::Node(*at)))
        .map(|(_, node)| node.path())
        .collect();
    let below = |path: &str, above: &str| {
        path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut dockerfile = Vec::new();
    for (at, instruction) in case.dockerfile.iter().enumerate() {
        if keep(Part::Instruction(at)) {
            let mut instruction = instruction.clone();
            let mut word = 0;
            instruction.words.retain(|_| {
                word += 1;
                keep(Part::Word(at, word - 1))
            });
            dockerfile.push(instruction);
        }
    }
    let lacks = |path: &str| gone.iter().any(|above| below(path, above));
    let stays = |node: &&Node| match node {
        Node::Archive { of, .. } => !lacks(node.path()) && !lacks(of),
        _ => !lacks(node.path()),
    };
    let nodes = case.context.iter().filter(stays);
    let ignore = case.ignore.iter().enumerate().filter(|(at, _)| keep(Part::Ignore(*at)));
    let flags = case.flags.iter().enumerate().filter(|(at, _)| keep(Part::Flag(at - at % 2)));
    Case {
        dockerfile,
        context: nodes.cloned().collect(),
        ignore: ignore.map(|(_, line)| line.clone()).collect(),
        flags: flags.map(|(_, flag)| flag.clone()).collect(),
        not_compared: case.not_compared.clone(),
        not_configured: case.not_configured.clone(),
        by_layer: case.by_layer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differential::{Language, generate};

    #[test]
    fn what_is_left_is_what_is_needed() {
        let copies = |case: &Case| case.text().to_lowercase().matches("copy ").count();
        let mut all = (0..).map(|seed| generate(seed, Language::Full));
        let large = |case: &Case| copies(case) > 1 && case.dockerfile.len() > 5;
        let case = all.find(large).expect("some are");
        let mut tried = 0;
        let smallest = minimise(case, |cases| {
            tried += cases.len();
            cases.iter().map(|case| copies(case) > 0).collect()
        });
        let words: usize = smallest.dockerfile.iter().map(|line| line.words.len()).sum();
        assert_eq!((smallest.dockerfile.len(), words), (1, 2), "{}", smallest.text());
        assert!(
            smallest.context.is_empty() && smallest.ignore.is_empty() && smallest.flags.is_empty()
        );
        assert!(tried < 500, "{tried}");
    }

    #[test]
    fn a_seed_gives_the_same_case_each_time() {
        for seed in 0..200 {
            assert_eq!(generate(seed, Language::Full), generate(seed, Language::Full));
        }
    }
}
