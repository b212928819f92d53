//! Whose turn it is: shares converge to weights, and nobody waits for ever.

use super::farm::*;
use crate::core::WorkId;
use crate::core::place::*;
use proptest::prelude::*;
use proto::wire::worker::Capacity;
use std::collections::BTreeMap;

/// Flows that always have something to do, on workers that are always busy.
struct Contest {
    farm: Farm,
    /// When each running piece of work ends, with its flow.
    ends: BTreeMap<(u64, u64), usize>,
    flows: Vec<(Demand, u64)>,
    /// Milliseconds of slots that each flow got.
    got: Vec<u64>,
    last: u64,
}

impl Contest {
    /// Flows with the time that each of their pieces of work takes.
    fn new(slots: u32, flows: Vec<(Demand, u64)>) -> Self {
        let got = vec![0; flows.len()];
        let farm = Farm::of(&[("a", slots)]);
        let mut contest = Self { farm, ends: BTreeMap::new(), flows, got, last: 0 };
        (0..contest.flows.len()).for_each(|flow| (0..slots).for_each(|_| contest.more(flow)));
        contest
    }

    fn more(&mut self, flow: usize) {
        self.last += 1;
        let demand = self.flows[flow].0.clone();
        self.farm.placer.ready(self.farm.now(), WorkId(self.last << 8 | flow as u64), &demand);
    }

    fn run(&mut self, ms: u64) {
        let end = self.farm.now + ms;
        while self.farm.now < end {
            while let Some((work, _)) = self.farm.placer.next(self.farm.now()) {
                let flow = (work.0 & 0xff) as usize;
                self.ends.insert((self.farm.now + self.flows[flow].1, work.0), flow);
                self.more(flow);
            }
            let ((at, work), flow) = self.ends.pop_first().expect("all slots are busy");
            self.farm.now = at;
            self.farm.ended(work);
            self.got[flow] += self.flows[flow].1;
        }
    }
}

fn took(demand: Demand, ms: u64) -> (Demand, u64) {
    let expected = Expected { wall_ms: ms, deviation_ms: 0 };
    (Demand { expected, ..demand }, ms)
}

#[test]
fn projects_share_by_weight_whatever_their_users_and_builds() {
    let mut flows = vec![took(run("light", "u", "b0"), 1000)];
    for n in 1..10 {
        flows.push(took(run("heavy", &format!("u{}", n % 3), &format!("b{n}")), 1000));
    }
    let mut contest = Contest::new(4, flows);
    contest.farm.placer.weight("heavy", 3);
    contest.run(1_000_000);
    let heavy: u64 = contest.got[1..].iter().sum();
    let ratio = heavy as f64 / contest.got[0] as f64;
    assert!((2.9..3.1).contains(&ratio), "{ratio} {:?}", contest.got);
    let (most, least) = (contest.got[1..].iter().max(), contest.got[1..].iter().min());
    assert!(most.unwrap() - least.unwrap() <= 4000, "{:?}", contest.got);
}

#[test]
fn each_level_of_priority_doubles() {
    let with = |n: u8| {
        let mut demand = run("p", "u", &format!("b{n}"));
        demand.flow.priority = n;
        took(demand, 1000)
    };
    let mut contest = Contest::new(2, vec![with(0), with(1), with(3)]);
    contest.run(1_000_000);
    let got = &contest.got;
    let near = |a: u64, b: u64| (a as f64 / b as f64 - 1.0).abs() < 0.05;
    assert!(near(got[1], 2 * got[0]) && near(got[2], 8 * got[0]), "{got:?}");
}

#[test]
fn what_takes_longer_than_expected_is_paid_for_later() {
    let mut wrong = took(run("wrong", "u", "b1"), 5000);
    wrong.0.expected.wall_ms = 100;
    let mut contest = Contest::new(2, vec![wrong, took(run("right", "u", "b2"), 1000)]);
    contest.run(2_000_000);
    let ratio = contest.got[0] as f64 / contest.got[1] as f64;
    assert!((0.95..1.05).contains(&ratio), "{ratio} {:?}", contest.got);
}

#[test]
fn who_waits_for_one_platform_pays_nothing_for_another() {
    let mut farm = Farm::of(&[("amd", 1)]);
    farm.worker("arm", Capacity { platforms: vec![platform("linux/arm64")], ..capacity(1) });
    let arm = |build| Demand { platform: platform("linux/arm64"), ..run("busy", "u", build) };
    for n in 0..100 {
        farm.ready(n, arm("b1"));
        assert_eq!(farm.works(), [n]);
        farm.now += 1000;
        farm.ended(n);
    }
    farm.ready(200, run("other", "u", "b2"));
    assert_eq!(farm.works(), [200]);
    for n in 0..10 {
        farm.ready(210 + n, run("other", "u", "b2"));
        farm.ready(230 + n, run("busy", "u", "b1"));
    }
    let mut order = vec![200];
    for _ in 0..10 {
        farm.now += 1000;
        farm.ended(*order.last().expect("one runs"));
        order.extend(farm.works());
    }
    let busy = order.iter().filter(|n| **n >= 230).count();
    assert!((5..=6).contains(&busy), "{order:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the weights and the lengths of steps, and however wrong they are guessed.
    #[test]
    fn shares_converge_to_weights(
        flows in prop::collection::vec((1u32..6, 1u64..20, 1u64..20), 2..6),
        slots in 1u32..6,
    ) {
        let all = flows.iter().enumerate().map(|(n, (_, ms, guess))| {
            let mut flow = took(run(&format!("p{n}"), "u", &format!("b{n}")), ms * 100);
            flow.0.expected.wall_ms = guess * 100;
            flow
        });
        let mut contest = Contest::new(slots, all.collect());
        for (n, (weight, ..)) in flows.iter().enumerate() {
            contest.farm.placer.weight(&format!("p{n}"), *weight);
        }
        contest.run(400_000);
        let (got, all) = (contest.got.clone(), contest.got.iter().sum::<u64>() as f64);
        let weights: u32 = flows.iter().map(|f| f.0).sum();
        for (n, (weight, ..)) in flows.iter().enumerate() {
            let (has, due) = (got[n] as f64 / all, f64::from(*weight) / f64::from(weights));
            prop_assert!((has - due).abs() < 0.04, "{n} has {has}, is due {due}: {got:?}");
        }
    }

    /// An endless stream of newcomers, each with a build, a user or a project of its own, does not
    /// keep work that waits from its turn, whatever its build has had before.
    #[test]
    fn newcomers_do_not_pass_for_ever(
        kind in 0u8..3,
        had in 0u64..40,
        waiting in 0u64..20,
        slots in 1u32..4,
        length in 1u64..20,
    ) {
        let mut farm = Farm::of(&[("a", slots)]);
        let victim = |ms| took(run("p", "u", "victim"), ms).0;
        let other = |n: u64| match kind {
            0 => run("p", "u", &format!("b{n}")),
            1 => run("p", &format!("u{n}"), "b"),
            _ => run(&format!("p{n}"), "u", "b"),
        };
        let mut last = 1;
        let mut running = Vec::new();
        // The others wait, the victim has had something.
        for _ in 0..waiting + u64::from(slots) {
            last += 1;
            farm.ready(last, other(last));
        }
        running.extend(farm.works());
        for n in 0..had {
            farm.ready(1_000_000 + n, victim(length * 1000));
        }
        for _ in 0..had {
            farm.now += 1000;
            running.drain(..).for_each(|work| farm.ended(work));
            last += 1;
            farm.ready(last, other(last));
            running.extend(farm.works());
        }
        (0..had).for_each(|n| farm.placer.withdraw(WorkId(1_000_000 + n)));
        farm.ready(1, victim(1000));
        let mut passed = 0;
        loop {
            farm.now += 1000;
            running.drain(..).for_each(|work| farm.ended(work));
            for _ in 0..slots {
                last += 1;
                farm.ready(last, other(last));
            }
            running.extend(farm.works());
            if running.contains(&1) {
                break;
            }
            passed += running.len() as u64;
            // Each of those that waited goes once or twice, and for each millisecond that the
            // victim has had more than the others they get the same.
            let bound = 3 * (waiting + u64::from(slots) + 2) * (length + 2);
            prop_assert!(passed <= bound, "passed {passed} times, {bound} at most");
        }
    }

    /// However small what comes meanwhile: something large gets its turn.
    #[test]
    fn small_work_does_not_pass_large_for_ever(
        slots in 2u32..6,
        workers in 1u64..4,
        large in 2u32..6,
        seed in any::<u64>(),
    ) {
        let mut farm = Farm::new();
        (0..workers).for_each(|n| farm.worker(&format!("w{n}"), capacity(slots)));
        let mut chance = Chance(seed);
        let mut ends: BTreeMap<(u64, u64), ()> = BTreeMap::new();
        let large = large.min(slots) * 1000;
        let mut last = 10;
        let mut passed = 0;
        // Small work that never ends all at once.
        for round in 0.. {
            for _ in 0..workers * u64::from(slots) {
                last += 1;
                farm.ready(last, run("small", "u", "b"));
            }
            if round == 3 {
                farm.ready(1, Demand { cpu_millis: large, ..run("large", "u", "b") });
            }
            let placed = farm.works();
            if placed.contains(&1) {
                break;
            }
            passed += if round > 3 { placed.len() as u64 } else { 0 };
            for work in placed {
                ends.insert((farm.now + 500 + chance.below(1000), work), ());
            }
            let ((at, work), ()) = ends.pop_first().expect("something runs");
            farm.now = farm.now.max(at);
            farm.ended(work);
            // What runs where it is kept free ends within three rounds of the others.
            let bound = u64::from(BYPASS_MAX) + 4 * workers * u64::from(slots);
            prop_assert!(passed <= bound, "passed {passed} times, {bound} at most");
        }
    }
}
