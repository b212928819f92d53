//! Random Dockerfiles and contexts, built by Slipway and by others: BuildKit in Debian's docker.io, and
//! Debian's buildah. Longer runs, also beside a newer BuildKit, are `differential`'s.

use std::ops::Range;
use tests::differential::{Case, Pair, Peer, Verdict, generate};

/// The BuildKit of docker.io does otherwise than the corpus' with about 3 of 100, but with none of these.
/// They are others after each change of the generator, and have to be chosen anew.
const OF_BUILDKIT: Range<u64> = 90..130;

/// Buildah does otherwise with about 1 of 100, but with none of these.
const OF_BUILDAH: Range<u64> = 10..50;

#[test]
fn random_dockerfiles_have_the_results_of_buildkit() {
    let (built, all) = compare(Pair::new(Peer::engine(), 4), OF_BUILDKIT);
    assert!(built >= all / 2, "only {built} are Dockerfiles that can be built");
}

#[test]
fn random_dockerfiles_have_the_results_of_buildah() {
    let (built, all) = compare(Pair::new(Peer::buildah(), 4), OF_BUILDAH);
    assert!(built >= all * 2 / 5, "only {built} are Dockerfiles that can be built");
}

/// Builds the cases of these seeds, which must come to the same by both; says how many both built, and
/// how many there are.
fn compare(pair: Pair, seeds: Range<u64>) -> (usize, usize) {
    let cases: Vec<Case> = seeds.clone().map(|seed| generate(seed, pair.language())).collect();
    let verdicts = pair.compare(&cases);
    let count = |verdict: &Verdict| verdicts.iter().filter(|other| *other == verdict).count();
    let (built, refused) = (count(&Verdict::Built), count(&Verdict::Refused));
    for ((seed, case), verdict) in seeds.zip(&cases).zip(&verdicts) {
        if let Verdict::Different(difference) = verdict {
            println!("Seed {seed}: {}\n{}", difference.0.join("; "), case.text());
        }
    }
    let smaller = "`differential --from SEED --cases 1` makes it smaller";
    assert_eq!(built + refused, cases.len(), "{smaller}");
    pair.stop();
    (built, cases.len())
}
