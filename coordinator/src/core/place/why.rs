//! Why work waits. Nothing of this is needed to decide, so nothing of it is kept: it is looked up
//! when somebody asks, workers once for each size that is asked for.

use super::arena::{ClassIx, ItemIx, NodeIx};
use super::demand::{Memory, Size, Takes};
use super::fleet::Tier;
use super::waiting::{Amount, Waiting};
use super::worker::Worker;
use super::{Item, Placer, Spot, State};
use crate::core::WorkId;
use proto::id::Millis;
use std::collections::BTreeMap;

/// The workers, as work of one size sees them.
#[derive(Debug, Clone, Copy, Default)]
struct View {
    /// Those that run its platform.
    runs: u64,
    /// Those of them that are large enough.
    large: u64,
    /// Those of them that get new work.
    open: u64,
    slots: u64,
    cordoned: u64,
    short_of_memory: u64,
    short_of_disk: u64,
    soonest_ms: Option<u64>,
    /// The most processors, and the most memory of those with as many as are needed.
    cpu_millis: u32,
    memory_bytes: u64,
}

/// What is looked up once for many questions.
#[derive(Debug, Default)]
struct Survey {
    views: BTreeMap<(ClassIx, Size), View>,
    /// Slots that lanes, projects and users have at the moment.
    slots: BTreeMap<NodeIx, u64>,
    /// How many builds wait in a class.
    builds: BTreeMap<ClassIx, u64>,
}

impl Placer {
    /// Why work waits; none when it does not.
    pub fn why(&self, now: Millis, work: WorkId) -> Option<Waiting> {
        let at = *self.by_work.get(&work)?;
        let item = &self.items[at];
        let place = self.shares.line(item.build, item.class).position(|other| other == at);
        self.reason(now, &mut self.survey(), at, place.unwrap_or(0) as u64)
    }

    /// All work that waits since a time or for longer, and why, by number.
    pub fn waiting(&self, now: Millis, since: Millis) -> Vec<(WorkId, Waiting)> {
        let mut survey = self.survey();
        let mut waiting = BTreeMap::new();
        let mut tell = |at: ItemIx, place: usize| {
            let item = &self.items[at];
            if item.since <= since
                && let Some(why) = self.reason(now, &mut survey, at, place as u64)
            {
                waiting.insert(item.work, why);
            }
        };
        for (class_ix, class) in self.classes.all.iter() {
            for (_, line) in self.shares.lines(class.lane, class_ix) {
                line.into_iter().enumerate().for_each(|(place, at)| tell(at, place));
            }
        }
        for (at, item) in self.items.iter() {
            if matches!(item.state, State::Misfit | State::Parked { .. }) {
                tell(at, 0);
            }
        }
        waiting.into_iter().collect()
    }

    fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        for (_, item) in self.items.iter() {
            if matches!(item.state, State::Running { .. }) {
                let [user, project] = self.shares.owners(item.build);
                for node in [user, project, self.shares.lane_of(item.build)] {
                    *survey.slots.entry(node).or_default() += 1;
                }
            }
        }
        survey
    }

    fn reason(&self, now: Millis, survey: &mut Survey, at: ItemIx, place: u64) -> Option<Waiting> {
        let item = &self.items[at];
        match item.state {
            State::Running { .. } => None,
            State::Parked { spot: Spot::Holder(worker), until, moving_ms, .. } => {
                let worker = self.fleets.workers[worker].id.clone();
                Some(Waiting::Inputs { worker, in_ms: until.since(now), moving_ms })
            }
            State::Parked { spot: Spot::Native, until, .. } => {
                let platform = self.classes.all[item.class].platform.clone();
                Some(Waiting::Native { platform, in_ms: until.since(now) })
            }
            State::Queued | State::Misfit => {
                let view = self.view(now, survey, item);
                Some(
                    self.impossible(item, &view)
                        .or_else(|| self.room(now, item))
                        .unwrap_or_else(|| self.in_line(survey, &view, at, place)),
                )
            }
        }
    }

    /// What the workers look like.
    fn view(&self, now: Millis, survey: &mut Survey, item: &Item) -> View {
        let look = || {
            let mut view = View::default();
            let takes = item.size.takes;
            let fleets = self.classes.all[item.class].fleets.iter();
            let runs = fleets.filter(|(t, _)| *t != Tier::Foreign || takes == Takes::Connection);
            for (_, fleet) in runs {
                for (_, worker) in &self.fleets.fleets[*fleet].members {
                    view.add(now, &item.size, &self.fleets.workers[*worker]);
                }
            }
            view
        };
        *survey.views.entry((item.class, item.size)).or_insert_with(look)
    }

    /// Why no worker could begin it even if all were idle.
    fn impossible(&self, item: &Item, view: &View) -> Option<Waiting> {
        let workers = self.fleets.workers.len() as u64;
        match view {
            _ if workers == 0 => Some(Waiting::NoWorker),
            View { runs: 0, .. } => {
                let platform = self.classes.all[item.class].platform.clone();
                Some(Waiting::NoPlatform { platform, workers })
            }
            View { large: 0, .. } => {
                let cpu = Amount::Cpu(item.size.cpu_millis);
                let (needs, largest) = match item.size.memory {
                    _ if view.cpu_millis < item.size.cpu_millis => {
                        (cpu, Amount::Cpu(view.cpu_millis))
                    }
                    Memory::Asked(bytes) => {
                        (Amount::Memory(bytes), Amount::Memory(view.memory_bytes))
                    }
                    Memory::Share | Memory::Learnt(_) => (cpu, Amount::Cpu(view.cpu_millis)),
                };
                Some(Waiting::TooLarge { needs, largest })
            }
            View { open: 0, short_of_memory, short_of_disk, large, cordoned, .. }
                if cordoned < large =>
            {
                let (memory, disk) = (*short_of_memory > 0, *short_of_disk > 0);
                Some(Waiting::Pressure { workers: large - cordoned, memory, disk })
            }
            View { open: 0, large, .. } => Some(Waiting::Cordoned { workers: *large }),
            _ => None,
        }
    }

    /// Whether a worker is kept free.
    fn room(&self, now: Millis, item: &Item) -> Option<Waiting> {
        let worker = &self.fleets.workers[self.classes.all[item.class].reserved?];
        let in_ms = worker.room_in_ms(now, &item.size, 0);
        Some(Waiting::Room { worker: worker.id.clone(), in_ms })
    }

    /// It waits for its turn.
    fn in_line(&self, survey: &mut Survey, view: &View, at: ItemIx, place: u64) -> Waiting {
        let item = &self.items[at];
        let class = &self.classes.all[item.class];
        let is_first = self.shares.first(class.lane, item.class).is_some_and(|(i, _)| i == at);
        let count = || self.shares.lines(class.lane, item.class).len() as u64;
        let builds = *survey.builds.entry(item.class).or_insert_with(count);
        // As if all builds took turns.
        let before = match is_first {
            true => 0,
            false => ((place + 1) * builds).saturating_sub(1).min(u64::from(class.queued) - 1),
        };
        let turns = before.saturating_mul(item.expected.wall_ms) / view.slots.max(1);
        let in_ms = view.soonest_ms.unwrap_or(0).saturating_add(turns);
        if let (Some((whose, slots)), false) = (self.has_its_share(survey, item), is_first) {
            return Waiting::Share { whose, slots, before, in_ms };
        }
        Waiting::Busy { workers: view.open, before, in_ms }
    }

    /// Whether its user or project has as much as it is due while others wait: who, and how much.
    fn has_its_share(&self, survey: &Survey, item: &Item) -> Option<(String, u64)> {
        let [user, project] = self.shares.owners(item.build);
        let slots = |node| survey.slots.get(&node).copied().unwrap_or(0);
        let full = |node: NodeIx, all: u64| {
            let (own, waiting) = self.shares.part(node)?;
            let has = slots(node);
            (has > 0 && has.saturating_mul(waiting) > all.saturating_mul(own)).then_some(has)
        };
        let all = slots(self.classes.all[item.class].lane);
        let (user_name, project_name) = (self.shares.name(user), self.shares.name(project));
        if let Some(has) = full(project, all) {
            return Some((format!("Project {project_name}"), has));
        }
        let has = full(user, slots(project))?;
        Some((format!("User {user_name} of project {project_name}"), has))
    }
}

impl View {
    fn add(&mut self, now: Millis, size: &Size, worker: &Worker) {
        self.runs += 1;
        let all = worker.totals.all;
        self.cpu_millis = self.cpu_millis.max(all.cpu_millis);
        if all.cpu_millis >= size.cpu_millis {
            self.memory_bytes = self.memory_bytes.max(all.memory_bytes);
        }
        if !worker.could(size) {
            return;
        }
        self.large += 1;
        let pressure = worker.capacity.pressure;
        if worker.is_open() {
            self.open += 1;
            self.slots += u64::from(all.slots);
            let in_ms = worker.room_in_ms(now, size, 0);
            self.soonest_ms = Some(self.soonest_ms.map_or(in_ms, |ms| ms.min(in_ms)));
        } else if worker.cordoned || !worker.capacity.takes_work {
            self.cordoned += 1;
        } else {
            self.short_of_memory += u64::from(pressure.memory);
            self.short_of_disk += u64::from(pressure.disk);
        }
    }
}
