//! Random Dockerfiles and contexts, built by Slipway and by BuildKit in Debian's docker.io. Longer runs,
//! also beside a newer BuildKit, are `differential`'s.

use tests::differential::{Case, Pair, Peer, Verdict, generate};

/// The BuildKit of docker.io does otherwise than the corpus' with about 3 of 100, but with none of these.
/// They are others after each change of the generator, and have to be chosen anew.
const SEEDS: std::ops::Range<u64> = 90..130;

#[test]
fn random_dockerfiles_have_the_results_of_buildkit() {
    let pair = Pair::new(Peer::engine(), 4);
    let cases: Vec<Case> = SEEDS.map(|seed| generate(seed, pair.language())).collect();
    let verdicts = pair.compare(&cases);
    let count = |verdict: &Verdict| verdicts.iter().filter(|other| *other == verdict).count();
    let (built, refused) = (count(&Verdict::Built), count(&Verdict::Refused));
    for ((seed, case), verdict) in SEEDS.zip(&cases).zip(&verdicts) {
        if let Verdict::Different(difference) = verdict {
            println!("Seed {seed}: {}\n{}", difference.0.join("; "), case.text());
        }
    }
    let smaller = "`differential --from SEED --cases 1` makes it smaller";
    assert_eq!(built + refused, cases.len(), "{smaller}");
    assert!(built >= cases.len() / 2, "only {built} are Dockerfiles that can be built");
    pair.stop();
}
