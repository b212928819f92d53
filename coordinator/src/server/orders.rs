//! What an operator wants of workers: kept in the log, so that it holds after a restart.

use super::{Coordinator, Ledger};
use crate::core::Event;
use crate::core::facts::Fact;
use proto::error::Failure;
use proto::id::WorkerId;

/// Under what the orders for workers are kept.
const PREFIX: &[u8] = b"worker/";

/// What an operator wants of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It gets nothing new.
    Cordoned,
    /// It is no member any more.
    Removed,
}

impl Order {
    const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Cordoned => b"cordoned",
            Self::Removed => b"removed",
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        [Self::Cordoned, Self::Removed].into_iter().find(|order| order.as_bytes() == bytes)
    }
}

fn key(worker: &WorkerId) -> Vec<u8> {
    [PREFIX, worker.as_str().as_bytes()].concat()
}

/// The fact that this is wanted of a worker; none for nothing special.
pub fn fact(worker: &WorkerId, order: Option<Order>) -> Fact {
    Fact::Kept { key: key(worker), value: order.map(|order| order.as_bytes().to_vec()) }
}

impl Ledger {
    /// What an operator wants of a worker, if anything.
    pub fn order(&self, worker: &WorkerId) -> Option<Order> {
        self.read(|facts| Order::read(facts.kept.get(&key(worker))?))
    }

    /// All that operators want of workers, by name.
    pub fn orders(&self) -> Vec<(WorkerId, Order)> {
        self.read(|facts| {
            let of = |(key, value): (&Vec<u8>, &Vec<u8>)| {
                let name = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
                Some((WorkerId::parse(name).ok()?, Order::read(value)?))
            };
            let kept = facts.kept.range(PREFIX.to_vec()..);
            kept.take_while(|(key, _)| key.starts_with(PREFIX)).filter_map(of).collect()
        })
    }
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Duties {
    /// Steps.
    pub steps: usize,
    /// Other work: looking things up, packing layers, making outputs.
    pub calls: usize,
}

impl Duties {
    /// Whether it does nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Coordinator {
    /// A worker gets nothing new from now on, or does again; also after a restart of either.
    pub async fn cordon(&self, worker: &WorkerId, cordoned: bool) -> Result<(), Failure> {
        let server = &self.0;
        server.ledger.note(&[fact(worker, cordoned.then_some(Order::Cordoned))]).await?;
        server.workers.cordon(worker, cordoned);
        server.tell(Event::Cordoned { worker: worker.clone(), cordoned }).await;
        tracing::info!(%worker, cordoned, "a worker was cordoned, or is not any more");
        Ok(())
    }

    /// A worker is no member any more: what it does is done elsewhere, and it may not come back
    /// before it has joined again.
    pub async fn remove_worker(&self, worker: &WorkerId) -> Result<(), Failure> {
        let server = &self.0;
        server.ledger.note(&[fact(worker, Some(Order::Removed))]).await?;
        server.workers.expel(worker);
        server.workers.cordon(worker, false);
        server.tell(Event::WorkerLost { worker: worker.clone() }).await;
        server.tell(Event::Cordoned { worker: worker.clone(), cordoned: false }).await;
        tracing::info!(%worker, "a worker was removed");
        Ok(())
    }

    /// What a worker does at the moment.
    pub async fn duties(&self, worker: &WorkerId) -> Result<Duties, Failure> {
        let asked = worker.clone();
        let steps = self.0.look(move |core, _| core.steps_at(&asked)).await?;
        Ok(Duties { steps, calls: self.0.workers.calls_of(worker) })
    }

    /// Whether a worker may be here, by what operators want.
    pub fn is_removed(&self, worker: &WorkerId) -> bool {
        self.0.ledger.order(worker) == Some(Order::Removed)
    }

    /// Workers of which operators want something.
    pub fn orders(&self) -> Vec<(WorkerId, Order)> {
        self.0.ledger.orders()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_are_kept_by_name_and_end() {
        let ledger = Ledger::in_memory();
        let [one, two] = ["box-1", "box-2"].map(|name| WorkerId::parse(name).unwrap());
        let token = Fact::Kept { key: b"token/x".to_vec(), value: Some(b"removed".to_vec()) };
        let facts = [fact(&one, Some(Order::Cordoned)), token, fact(&two, Some(Order::Removed))];
        ledger.note(&facts).await.unwrap();
        assert_eq!(
            ledger.orders(),
            [(one.clone(), Order::Cordoned), (two.clone(), Order::Removed)]
        );
        assert_eq!(
            (ledger.order(&one), ledger.order(&two)),
            (Some(Order::Cordoned), Some(Order::Removed))
        );
        ledger.note(&[fact(&one, None)]).await.unwrap();
        assert_eq!((ledger.order(&one), ledger.orders().len()), (None, 1));
    }
}
