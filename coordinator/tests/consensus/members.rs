//! Members that come and go, in a world that is not calm.

use crate::oracle::Violation;
use crate::world::{Counts, Faults, World, node};
use coordinator::raft::{Change, Membership, NodeId};
use std::collections::BTreeSet;

const UNEASY: Faults = Faults {
    loss: 20,
    repeat: 20,
    delay: 6,
    crash: 8,
    fail: 5,
    stall: 5,
    cut: 10,
    heal: 200,
    resign: 10,
    ..Faults::NONE
};

fn set(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| node(*id)).collect()
}

fn members(voters: &[u64], learners: &[u64]) -> Membership {
    Membership { voters: set(voters), learners: set(learners), outgoing: BTreeSet::new() }
}

/// Asks whoever leads, again and again, until the members are these. What was asked before may have
/// happened although nobody said so, so that each time only what is missing is asked for.
fn bring(world: &mut World, wanted: &Membership) -> Result<(), Violation> {
    for step in 0..20_000 {
        world.step()?;
        if step % 5 == 0 {
            world.client()?;
        }
        let leader = world.leader();
        let Some(now) = leader.and_then(|leader| world.members(leader)) else { continue };
        if now == *wanted {
            return Ok(());
        }
        if step % 100 == 0 {
            let missing = missing(&now, wanted);
            // A leader can't remove itself, so that another one has to come first.
            match missing.iter().any(|c| matches!(c, Change::Remove(n) if Some(*n) == leader)) {
                true => world.resign(),
                false => world.change(&missing),
            }
        }
    }
    Err(Violation::Stuck { why: "members" })
}

fn missing(now: &Membership, wanted: &Membership) -> Vec<Change> {
    let gone = now.all().into_iter().filter(|node| !wanted.all().contains(node));
    let promoted = now.learners.iter().copied().filter(|node| wanted.voters.contains(node));
    let new = wanted.learners.iter().copied().filter(|node| !now.all().contains(node));
    let promoted = promoted.map(Change::Promote);
    gone.map(Change::Remove).chain(promoted).chain(new.map(Change::AddLearner)).collect()
}

/// One node becomes three, of which one is replaced.
fn grow_and_replace(world: &mut World) -> Result<(), Violation> {
    world.run(30)?;
    world.join(2);
    world.join(3);
    bring(world, &members(&[1], &[2, 3]))?;
    // Both at once: a log of two voters would stand still without either of them.
    bring(world, &members(&[1, 2, 3], &[]))?;
    world.join(4);
    bring(world, &members(&[1, 2, 3], &[4]))?;
    bring(world, &members(&[1, 3, 4], &[]))?;
    // Who was removed may not know it, and must not disturb the others.
    (0..1000).try_for_each(|step| {
        world.step()?;
        if step % 5 == 0 { world.client() } else { Ok(()) }
    })?;
    world.retire(2);
    world.end()?;
    for id in [1, 3, 4] {
        assert_eq!(world.members(node(id)), Some(members(&[1, 3, 4], &[])), "as node {id} knows");
    }
    Ok(())
}

#[test]
fn members_come_and_go_without_loss() {
    let mut counts = Counts::default();
    for seed in crate::seeds(0..60) {
        let mut world = World::new(seed, 1, UNEASY);
        if let Err(violation) = grow_and_replace(&mut world) {
            panic!("{}{violation:?}", world.trace());
        }
        counts.add(&world.counts);
    }
    println!("{counts:?}");
}
