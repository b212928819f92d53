//! The core in a simulated world ([`world`]), and its rules by example.

pub(crate) mod world;

use super::*;
use proto::record::Cost;
use proto::step::*;
use proto::wire::build::Traffic;
use proto::wire::worker::{Outcome, Report};

use world::*;

#[test]
fn builds_end_whatever_happens() {
    for seed in 0..1000 {
        let mut world = World::new(seed, true);
        for n in 0..3 {
            world.worker_state(&worker_id(n), Vec::new());
            world.desired.entry(worker_id(n)).or_default();
        }
        let builds = 2 + world.chance.below(6);
        for n in 0..builds {
            let plan = random_plan(&mut world.chance, &format!("nonce {n}"), true);
            world.apply(Event::Submitted { build: build_id(n), plan });
            for _ in 0..world.chance.below(40) {
                world.step();
            }
            if world.chance.one_in(5) && !world.ended.contains_key(&build_id(n)) {
                world.ended.insert(build_id(n), End::Failed);
                world.apply(Event::Ended { build: build_id(n) });
            }
        }
        world.run_to_end();
        for n in 0..builds {
            let rows = || world.core.works.iter().map(|(id, w)| w.line(*id)).collect::<Vec<_>>();
            let ended = world.ended.contains_key(&build_id(n));
            assert!(ended, "seed {seed}: build {n} did not end: {:#?}", rows());
        }
        assert!(world.core.works.is_empty(), "seed {seed}: rows are left");
        assert!(world.core.leases.is_empty() && world.core.held.is_empty(), "seed {seed}");
        assert!(world.core.by_content.is_empty() && world.core.placer.is_empty(), "seed {seed}");
    }
}

#[test]
fn identical_work_runs_once() {
    for seed in 0..200 {
        let mut world = World::new(seed, false);
        world.worker_state(&worker_id(0), Vec::new());
        let mut chance = Chance(seed * 7 + 1);
        for n in 0..5 {
            // The same few plans again and again, at any time.
            let mut plans = Chance(seed + chance.below(2) as u64);
            let mut plan = Arc::unwrap_or_clone(random_plan(&mut plans, "n", false));
            plan.graph.steps.iter_mut().for_each(|s| s.cache = CacheUse::Use);
            let target = plan.graph.targets[0].step;
            let plan = super::tests::plan(plan.graph.steps, target, plan.roots, "n");
            world.apply(Event::Submitted { build: build_id(n), plan });
            for _ in 0..chance.below(30) {
                world.step();
            }
        }
        world.run_to_end();
        assert!(world.ended.values().all(|e| *e == End::Ready), "seed {seed}");
        let twice: Vec<_> = world.executions.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: {twice:?}");
    }
}

#[test]
fn what_runs_is_adopted_when_the_coordinator_begins_anew() {
    for seed in 0..400 {
        let mut world = World::new(seed, false);
        for n in 0..3 {
            world.worker_state(&worker_id(n), Vec::new());
            world.desired.entry(worker_id(n)).or_default();
        }
        let mut chance = Chance(seed * 11 + 3);
        for n in 0..4 {
            let mut plan = Arc::unwrap_or_clone(random_plan(&mut chance, "n", false));
            plan.graph.steps.iter_mut().for_each(|s| s.cache = CacheUse::Use);
            let target = plan.graph.targets[0].step;
            let plan = super::tests::plan(plan.graph.steps, target, plan.roots, "n");
            world.apply(Event::Submitted { build: build_id(n), plan });
            for _ in 0..chance.below(60) {
                world.step();
                if chance.one_in(15) {
                    world.restart();
                }
            }
        }
        world.run_to_end();
        let all_ready = world.ended.len() == 4 && world.ended.values().all(|e| *e == End::Ready);
        assert!(all_ready, "seed {seed}: {:?}", world.ended);
        let twice: Vec<_> = world.executions.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: {twice:?}");
        assert!(world.core.works.is_empty() && world.core.leases.is_empty(), "seed {seed}");
        assert!(world.facts.leases.is_empty(), "seed {seed}: {:?}", world.facts.leases);
    }
}

#[test]
fn a_lease_whose_build_has_gone_is_stopped_in_the_end() {
    let mut world = World::with_slots(1);
    let plan = Arc::new(all_targets(runs(&["one"])));
    world.apply(Event::Submitted { build: build_id(0), plan });
    world.settle();
    assert_eq!(world.running(), ["one"]);
    world.plans.clear();
    world.restart();
    world.worker_state(&worker_id(0), Vec::new());
    world.settle();
    assert_eq!(world.running(), ["one"], "somebody may still ask for it");
    assert!(world.idle());
    assert!(world.running().is_empty() && world.facts.leases.is_empty());
}

#[test]
fn a_lease_is_of_the_builds_that_need_its_step() {
    let mut world = World::with_slots(1);
    let plan = Arc::new(all_targets(runs(&["one"])));
    world.apply(Event::Submitted { build: build_id(0), plan });
    world.settle();
    assert_eq!(world.running(), ["one"]);
    let has = |world: &World, worker, build, scope: &Scope, text: &str| {
        let is = |op: &Op| matches!(op, Op::Run(run) if run.args[0] == text);
        world.core.has_lease(&worker_id(worker), &build_id(build), scope, is)
    };
    let (own, other) = (Scope::trusted(), Scope::parse("other:trusted").unwrap());
    assert!(has(&world, 0, 0, &own, "one"));
    assert!(!has(&world, 1, 0, &own, "one"), "another worker");
    assert!(!has(&world, 0, 1, &own, "one"), "another build");
    assert!(!has(&world, 0, 0, &own, "two"), "another step");
    world.restart();
    assert!(has(&world, 0, 0, &own, "one"), "it may be the one");
    assert!(!has(&world, 1, 0, &own, "one") && !has(&world, 0, 0, &other, "one"));
    world.settle();
    world.worker_state(&worker_id(0), Vec::new());
    assert!(has(&world, 0, 0, &own, "one"), "it is the one");
    assert!(!has(&world, 0, 0, &own, "two"));
    world.end_all(1);
    assert!(!has(&world, 0, 0, &own, "one"), "it is over");
}

#[test]
fn a_worker_that_does_not_come_back_is_stood_in_for() {
    let mut world = World::with_slots(1);
    let plan = Arc::new(all_targets(runs(&["one"])));
    world.apply(Event::Submitted { build: build_id(0), plan });
    world.settle();
    world.restart();
    world.worker_state(&worker_id(1), Vec::new());
    world.settle();
    let others = |world: &World| world.desired.get(&worker_id(1)).map_or(0, Vec::len);
    assert_eq!(others(&world), 0, "it is under way where it was");
    world.apply(Event::WorkerLost { worker: worker_id(0) });
    assert_eq!(others(&world), 1);
}

/// Two RUNs upon one image, with a COPY from another one between them.
fn steps() -> Vec<Step> {
    vec![
        step(image("base"), vec![]),
        step(run("one"), vec![StepId(0)]),
        step(image("tool"), vec![]),
        step(copy(), vec![StepId(1), StepId(2)]),
        step(run("two"), vec![StepId(3)]),
    ]
}

#[test]
fn a_cached_build_needs_neither_base_nor_worker() {
    let mut world = World::new(1, false);
    world.worker_state(&worker_id(0), Vec::new());
    world.apply(Event::Submitted { build: build_id(0), plan: plan(steps(), StepId(4), false, "") });
    world.run_to_end();
    let executions = world.executions.clone();
    assert_eq!(executions.len(), 4, "two images and two RUNs");
    world.records.retain(|_, r| r.layers.len() == 1);
    world.apply(Event::WorkerLost { worker: worker_id(0) });
    world.desired.clear();
    world.apply(Event::Submitted { build: build_id(1), plan: plan(steps(), StepId(4), false, "") });
    world.run_to_end();
    assert_eq!(world.ended[&build_id(1)], End::Ready);
    assert_eq!(world.executions, executions);
}

#[test]
fn a_definition_does_not_count_when_its_input_was_made_anew() {
    let steps = |cache| {
        let mut first = step(run("one"), vec![StepId(0)]);
        first.cache = cache;
        vec![step(image("base"), vec![]), first, step(run("two"), vec![StepId(1)])]
    };
    let mut world = World::new(1, false);
    world.worker_state(&worker_id(0), Vec::new());
    let submit = |world: &mut World, n, target, cache| {
        let plan = plan(steps(cache), StepId(target), false, "nonce");
        world.apply(Event::Submitted { build: build_id(n), plan });
        world.run_to_end();
    };
    submit(&mut world, 0, 2, CacheUse::Use);
    let two_before = world.records.len();
    // Only the first RUN is made anew: what the second one was made from is not there any more.
    submit(&mut world, 1, 1, CacheUse::Refresh);
    let ran = world.executions.values().sum::<u32>();
    submit(&mut world, 2, 2, CacheUse::Use);
    assert_eq!(
        world.records.len(),
        two_before,
        "the same bytes came out, so the keys are the same"
    );
    assert_eq!(world.executions.values().sum::<u32>(), ran, "found by content");
    let alias = world.aliases.values().filter(|a| !a.inputs.is_empty()).count();
    assert!(alias > 0);
}

#[test]
fn layers_that_cannot_be_had_are_made_again() {
    let mut world = World::new(1, false);
    world.worker_state(&worker_id(0), Vec::new());
    world.apply(Event::Submitted { build: build_id(0), plan: plan(steps(), StepId(4), false, "") });
    world.run_to_end();
    let ran = world.executions.values().sum::<u32>();
    world.apply(Event::Submitted { build: build_id(1), plan: plan(steps(), StepId(4), false, "") });
    while !world.ended.contains_key(&build_id(1)) {
        let event = world.pending.remove(0);
        world.apply(event);
    }
    assert_eq!(world.executions.values().sum::<u32>(), ran, "all of it was found");
    let records = world.core.records(&build_id(1));
    let looked_at: Vec<u32> = records.iter().map(|(step, _)| step.0).collect();
    assert_eq!(looked_at, [1, 3, 4], "not the images");
    // The outputs find that the lowest RUN's layer is gone.
    world.pending.retain(|event| !matches!(event, Event::Ended { .. }));
    world.ended.remove(&build_id(1));
    let rows = world.core.builds[&build_id(1)].works.clone();
    let layers = world.core.works[&rows[1]].made().expect("it was found").layers.clone();
    let what = "It is gone".to_owned();
    world.apply(Event::Lost { build: build_id(1), layers, what });
    let above = &world.core.works[&rows[4]];
    assert!(!matches!(above.phase, Phase::Done(_)), "what was made upon it is looked at again");
    world.run_to_end();
    assert_eq!(world.ended[&build_id(1)], End::Ready);
    let again: Vec<_> = world.executions.values().filter(|times| **times > 1).collect();
    assert_eq!(again, [&2], "it runs again, and what came out is the same");
    assert!(world.core.works.is_empty());
}

#[test]
fn all_layers_that_are_lost_are_made_again_at_once() {
    let mut world = World::new(1, false);
    world.worker_state(&worker_id(0), Vec::new());
    let submit = |world: &mut World, n| {
        let plan = plan(steps(), StepId(4), false, "");
        world.apply(Event::Submitted { build: build_id(n), plan });
    };
    submit(&mut world, 0);
    world.run_to_end();
    submit(&mut world, 1);
    while !world.ended.contains_key(&build_id(1)) {
        let event = world.pending.remove(0);
        world.apply(event);
    }
    world.pending.retain(|event| !matches!(event, Event::Ended { .. }));
    world.ended.remove(&build_id(1));
    let rows = world.core.builds[&build_id(1)].works.clone();
    let made = |row: usize| world.core.works[&rows[row]].made().expect("found").layers.clone();
    // One is made upon the other.
    let layers = [made(1), made(4)].concat();
    world.apply(Event::Lost { build: build_id(1), layers, what: "They are gone".to_owned() });
    world.run_to_end();
    assert_eq!(world.ended[&build_id(1)], End::Ready);
    let again: Vec<_> = world.executions.values().filter(|times| **times > 1).collect();
    assert_eq!(again, [&2, &2], "both run again, each once");
    assert!(world.core.works.is_empty());
}

#[test]
fn what_is_made_upon_foreign_records_is_found_by_content_only() {
    let steps = || vec![step(image("base"), vec![]), step(run("one"), vec![StepId(0)])];
    let with = |imports: Imports| {
        let plan = Arc::unwrap_or_clone(plan(steps(), StepId(1), false, ""));
        let mut world = World::new(1, false);
        world.worker_state(&worker_id(0), Vec::new());
        let plan = Arc::new(Plan { imports, ..plan });
        world.apply(Event::Submitted { build: build_id(0), plan });
        world.run_to_end();
        (world.records.len(), world.aliases.len())
    };
    assert_eq!(with(Imports::None), (2, 2));
    assert_eq!(with(Imports::Own(build_id(0))), (2, 2));
    assert_eq!(with(Imports::Foreign(build_id(0))), (2, 0));
}

#[test]
fn what_is_moved_for_a_step_is_told_once_to_each_build_that_takes_it() {
    let mut world = World::with_slots(1);
    let one = all_targets(runs(&["one"]));
    // The same by other definitions, twice.
    let mut other = all_targets(runs(&["one", "one"]));
    other.keys[1].work = DefKey::from_bytes([7; 32]);
    other.keys[2].work = DefKey::from_bytes([8; 32]);
    for (n, plan) in [one, other].into_iter().enumerate() {
        world.apply(Event::Submitted { build: build_id(n), plan: Arc::new(plan) });
        world.settle();
    }
    assert_eq!(world.running(), ["one"]);
    let (epoch, mut out) = (world.desired[&worker_id(0)][0].epoch, Vec::new());
    let (outcome, cost) = (Outcome::Done(vec![root_id(&[b"layer"])]), Cost::default());
    let traffic = Traffic { inputs: 5, ..Traffic::default() };
    let event = Event::Worker {
        worker: worker_id(0),
        capacity: capacity(1),
        running: Vec::new(),
        reports: vec![Report { epoch, outcome, cost, traffic }],
    };
    world.core.apply(Millis(world.now), event, &mut out);
    let moved = out.into_iter().filter_map(|effect| match effect {
        Effect::Notify { build, notice: Notice::Moved(moved), .. } => Some((build, moved)),
        _ => None,
    });
    let told = [(build_id(0), traffic), (build_id(1), traffic)];
    assert_eq!(moved.collect::<Vec<_>>(), told);
}

/// A world in which builds want the same step; each has it by a definition of its own, or all by one.
fn wanting(op: &Op, builds: &[usize], own: bool) -> World {
    let mut world = World::with_slots(1);
    for n in builds {
        want(&mut world, op, *n, own);
        world.settle();
    }
    world
}

fn want(world: &mut World, op: &Op, n: usize, own: bool) {
    let inputs = if op.is_run() { vec![StepId(0)] } else { Vec::new() };
    let mut plan = all_targets(vec![step(Op::Scratch, Vec::new()), step(op.clone(), inputs)]);
    if own {
        plan.keys[1].work = DefKey::from_bytes([n as u8; 32]);
    }
    world.apply(Event::Submitted { build: build_id(n), plan: Arc::new(plan) });
}

#[test]
fn what_fails_with_the_agent_of_one_build_is_tried_with_that_of_the_next() {
    for own in [false, true] {
        let mut world = wanting(&git(), &[1, 0, 2], own);
        assert_eq!(world.asked(), [build_id(1)], "it came first");
        world.fail_all();
        world.settle();
        assert_eq!(world.ended, [(build_id(1), End::Failed)].into(), "{own}");
        assert_eq!(world.asked(), [build_id(0)], "{own}");
        world.end_all(1);
        let ends = [(1, End::Failed), (0, End::Ready), (2, End::Ready)];
        assert_eq!(world.ended, ends.map(|(n, end)| (build_id(n), end)).into(), "{own}");
        assert!(world.core.works.is_empty() && world.core.leases.is_empty(), "{own}");
    }
}

#[test]
fn each_agent_is_tried_once() {
    for own in [false, true] {
        let mut world = wanting(&git(), &[0, 1, 2], own);
        for n in 0..3 {
            assert_eq!(world.asked(), [build_id(n)], "{own}");
            world.fail_all();
            world.settle();
            assert_eq!(world.ended.len(), n + 1, "{own}");
        }
        assert!(world.asked().is_empty() && world.core.works.is_empty(), "{own}");
    }
}

#[test]
fn an_agent_that_failed_does_not_count_for_who_comes_later() {
    let mut world = wanting(&git(), &[0], false);
    world.fail_all();
    assert!(world.core.builds.contains_key(&build_id(0)), "its end is not known yet");
    want(&mut world, &git(), 1, false);
    world.settle();
    assert_eq!(world.asked(), [build_id(1)]);
    world.end_all(1);
    assert_eq!(world.ended, [(build_id(0), End::Failed), (build_id(1), End::Ready)].into());
}

#[test]
fn an_agent_whose_build_went_away_is_nobody_elses_failure() {
    let mut world = wanting(&git(), &[0, 1], false);
    world.apply(Event::Ended { build: build_id(0) });
    world.fail_all();
    world.settle();
    assert_eq!(world.ended, BTreeMap::new());
    world.end_all(1);
    assert_eq!(world.ended, [(build_id(1), End::Ready)].into());
}

#[test]
fn a_command_that_fails_fails_for_all() {
    let mut world = wanting(&run("one"), &[0, 1], false);
    world.fail_all();
    world.settle();
    assert_eq!(world.ended, [(build_id(0), End::Failed), (build_id(1), End::Failed)].into());
    assert!(world.asked().is_empty());
}

#[test]
fn a_late_report_changes_nothing() {
    let steps = vec![step(image("base"), vec![])];
    let mut world = World::new(1, false);
    for n in 0..2 {
        world.worker_state(&worker_id(n), Vec::new());
    }
    let plan = plan(steps, StepId(0), true, "");
    world.apply(Event::Submitted { build: build_id(0), plan });
    while world.desired.values().all(Vec::is_empty) {
        assert!(world.step());
    }
    let (holder, lease) = world
        .desired
        .iter()
        .find_map(|(w, l)| Some((w.clone(), l.first()?.clone())))
        .expect("somebody has it");
    world.desired.remove(&holder);
    world.apply(Event::WorkerLost { worker: holder.clone() });
    let outcome = Outcome::Done(vec![root_id(&[b"late"])]);
    let report =
        Report { epoch: lease.epoch, outcome, cost: Cost::default(), traffic: Traffic::default() };
    world.worker_state(&holder, vec![report]);
    world.run_to_end();
    let layers: Vec<_> = world.records.values().flat_map(|r| r.layers.clone()).collect();
    assert!(!layers.contains(&root_id(&[b"late"])), "{layers:?}");
    assert_eq!(world.ended[&build_id(0)], End::Ready);
}

#[test]
fn what_took_long_before_goes_first() {
    let mut world = World::with_slots(1);
    let submit = |world: &mut World, n, texts: &[&str]| {
        let plan = Arc::new(all_targets(runs(texts)));
        world.apply(Event::Submitted { build: build_id(n), plan });
        world.settle();
    };
    submit(&mut world, 0, &["fast"]);
    world.end_all(10);
    submit(&mut world, 1, &["slow"]);
    world.end_all(100_000);
    world.records.clear();
    world.aliases.clear();
    // Nothing is known of the last one.
    world.cordon(true);
    submit(&mut world, 2, &["fast", "slow", "new"]);
    world.cordon(false);
    let mut order = Vec::new();
    while !world.running().is_empty() {
        order.extend(world.running());
        world.end_all(10);
    }
    assert_eq!(order, ["slow", "new", "fast"]);
    assert_eq!(world.core.history.len(), 3);
}

#[test]
fn owners_take_turns() {
    let mut world = World::with_slots(1);
    world.cordon(true);
    for (n, project) in ["a", "b"].into_iter().enumerate() {
        let texts: Vec<String> = (0..3).map(|i| format!("{project}{i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut plan = all_targets(runs(&texts));
        plan.owner = Owner { project: project.into(), user: "u".into() };
        world.apply(Event::Submitted { build: build_id(n), plan: Arc::new(plan) });
        world.settle();
    }
    world.cordon(false);
    let mut order = String::new();
    while !world.running().is_empty() {
        order.push_str(&world.running()[0][..1]);
        world.end_all(1000);
    }
    assert_eq!(order, "ababab");
}

#[test]
fn a_step_that_waits_says_why() {
    let mut world = World::with_slots(1);
    let mut steps = runs(&["one", "two", "three"]);
    steps[3].needs.memory_bytes = 1 << 40;
    let plan = Arc::new(all_targets(steps));
    world.apply(Event::Submitted { build: build_id(0), plan });
    world.settle();
    assert_eq!(world.core.waiting(Millis(world.now)), [], "not yet");
    world.now += 1000;
    let waits = world.core.waiting(Millis(world.now));
    let texts: Vec<(u32, String)> =
        waits.iter().map(|w| (w.steps[0].1.0, w.why.to_string())).collect();
    assert_eq!(waits[0].steps, [(build_id(0), StepId(2))]);
    let busy = "The only worker that could do it is busy: it is the next one, expected to begin in \
                about 14 s";
    let large = "No worker is large enough: it needs 1 TiB of memory, the largest has 4 GiB of \
                 memory";
    assert_eq!(texts, [(2, busy.to_owned()), (3, large.to_owned())]);
    world.cordon(true);
    let waits = world.core.waiting(Millis(world.now + 1000));
    let cordoned = "What could do it gets no new work: 1 worker cordoned or draining";
    assert_eq!(waits[0].why.to_string(), cordoned);
}

#[test]
fn a_chain_stays_where_it_began() {
    let mut world = World::new(1, false);
    for n in 0..3 {
        world.worker_state(&worker_id(n), Vec::new());
    }
    let mut steps = vec![step(image("base"), vec![])];
    (0..6).for_each(|n| steps.push(step(run(&format!("run {n}")), vec![StepId(n)])));
    let plan = plan(steps, StepId(6), false, "");
    world.apply(Event::Submitted { build: build_id(0), plan });
    world.settle();
    let mut places = BTreeSet::new();
    while !world.running().is_empty() {
        let busy = world.desired.iter().filter(|(_, leases)| !leases.is_empty());
        places.extend(busy.map(|(worker, _)| worker.clone()));
        world.end_all(10);
    }
    assert_eq!(places.len(), 1, "{places:?}");
    assert_eq!(world.ended[&build_id(0)], End::Ready);
}
