//! Cache mounts: what there is, and what becomes of it.

use crate::talk::Talk;
use cache::mounts::How;
use coordinator::server::{Coordinator, MountRow};
use proto::error::Failure;
use proto::id::Scope;
use proto::wire::admin::{MountGeneration, MountInfo, MountOrder, Reply};

/// All of them.
pub async fn list(coordinator: &Coordinator, talk: &mut Talk) -> Result<(), Failure> {
    let rows = coordinator.mounts().await.map_err(|e| Failure::new(e.class(), e.to_string()))?;
    for row in rows {
        talk.say(Reply::Mount(Box::new(info(row)))).await;
    }
    Ok(())
}

/// Does what is asked; says the number of the generation that is the newest then.
pub async fn order(
    coordinator: &Coordinator,
    talk: &mut Talk,
    (scope, id): (&Scope, &str),
    order: MountOrder,
) -> Result<(), Failure> {
    let number = match order {
        MountOrder::Rollback(to) => Some(coordinator.roll_back_mount(scope, id, to).await?),
        MountOrder::Import(root) => Some(coordinator.import_mount(scope, id, root).await?),
        MountOrder::Remove => {
            coordinator.remove_mount(scope, id).await?;
            None
        }
    };
    talk.say(Reply::Text(match number {
        Some(number) => format!("{id}: generation {number}"),
        None => id.to_owned(),
    }))
    .await;
    Ok(())
}

fn info(row: MountRow) -> MountInfo {
    let generation = |g: cache::mounts::Generation| MountGeneration {
        number: g.number,
        tree: g.tree,
        bytes: g.bytes,
        files: g.files,
        created: g.created,
        writer: g.writer,
        how: match g.how {
            How::Committed => "as a step left it".to_owned(),
            How::Merged { theirs } => format!("merged with {theirs}"),
            How::RolledBack { to } => format!("rolled back to {to}"),
            How::Imported => "imported".to_owned(),
        },
    };
    MountInfo {
        scope: row.scope,
        id: row.id,
        users: row.users.len() as u64,
        generations: row.generations.into_iter().map(generation).collect(),
    }
}
