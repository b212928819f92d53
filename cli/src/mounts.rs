//! `slipway cache mounts`: the directories of `RUN --mount=type=cache`.

use crate::args::Mounts;
use crate::build::{Place, Split, write_directory, write_tar};
use crate::clock;
use crate::error::user;
use crate::farm::Farm;
use crate::print::say;
use crate::table::Table;
use cache::scan;
use proto::error::{Class, Failure};
use proto::id::Scope;
use proto::platform::Platform;
use proto::wire::admin::{MountInfo, MountOrder, Reply, Request};
use proto::wire::build::FilesRoot;
use std::path::Path;

/// Does what the person asked for.
pub async fn run(farm: &Farm, command: Mounts) -> Result<(), Failure> {
    match command {
        Mounts::Ls => list(farm).await,
        Mounts::History { id, whose } => history(&find(farm, &id, &whose.scope).await?),
        Mounts::Rollback { id, generation, whose } => {
            order(farm, id, whose.scope, MountOrder::Rollback(generation)).await
        }
        Mounts::Rm { ids, whose } => {
            for id in ids {
                order(farm, id, whose.scope.clone(), MountOrder::Remove).await?;
            }
            Ok(())
        }
        Mounts::Export { id, output, generation, whose } => {
            let mount = find(farm, &id, &whose.scope).await?;
            export(farm, &mount, generation, &output).await
        }
        Mounts::Import { id, directory, whose } => {
            let failed = |e: scan::ScanError| {
                let failure = Failure::new(e.class(), format!("{}: {e}", directory.display()));
                match e.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            };
            let all = [".".to_owned()];
            let (blobs, top) = (&farm.blobs, scan::Top::Directory);
            let sent = scan::send(blobs, &directory, top, &all, None, None, Default::default());
            let root = sent.await.map_err(failed)?.root;
            order(farm, id, whose.scope, MountOrder::Import(root)).await
        }
    }
}

async fn order(farm: &Farm, id: String, scope: Scope, order: MountOrder) -> Result<(), Failure> {
    farm.ask(&Request::Mount { scope, id, order }, |reply, _| {
        if let Reply::Text(text) = reply {
            say!("{text}");
        }
    })
    .await
}

async fn all(farm: &Farm) -> Result<Vec<MountInfo>, Failure> {
    let mut mounts = Vec::new();
    farm.ask(&Request::Mounts, |reply, _| {
        if let Reply::Mount(mount) = reply {
            mounts.push(*mount);
        }
    })
    .await?;
    Ok(mounts)
}

async fn find(farm: &Farm, id: &str, scope: &Scope) -> Result<MountInfo, Failure> {
    let found = all(farm).await?.into_iter().find(|m| m.id == id && m.scope == *scope);
    found.ok_or_else(|| {
        user(format!("There is no cache mount `{id}` in scope {}", scope.as_str()))
            .hint("See `slipway cache mounts ls`.")
    })
}

async fn list(farm: &Farm) -> Result<(), Failure> {
    let now = clock::now_ms();
    let mut table =
        Table::new(&["ID", "SCOPE", "GENERATION", "SIZE", "FILES", "CREATED", "USED BY"]);
    for mount in all(farm).await? {
        let users = match mount.users {
            0 => String::new(),
            1 => "1 step".to_owned(),
            n => format!("{n} steps"),
        };
        let head = mount.generations.last();
        let text = |of: &dyn Fn(&proto::wire::admin::MountGeneration) -> String| {
            head.map_or_else(String::new, of)
        };
        table.row(&[
            &mount.id,
            mount.scope.as_str(),
            &text(&|g| g.number.to_string()),
            &text(&|g| clock::size(g.bytes)),
            &text(&|g| g.files.to_string()),
            &text(&|g| clock::ago(g.created.0, now)),
            &users,
        ]);
    }
    table.print();
    Ok(())
}

fn history(mount: &MountInfo) -> Result<(), Failure> {
    let now = clock::now_ms();
    let mut table = Table::new(&["GENERATION", "SIZE", "FILES", "CREATED", "BY", "HOW"]);
    for generation in mount.generations.iter().rev() {
        table.row(&[
            &generation.number.to_string(),
            &clock::size(generation.bytes),
            &generation.files.to_string(),
            &clock::ago(generation.created.0, now),
            generation.writer.as_str(),
            &generation.how,
        ]);
    }
    table.print();
    Ok(())
}

async fn export(
    farm: &Farm,
    mount: &MountInfo,
    number: Option<u64>,
    output: &Path,
) -> Result<(), Failure> {
    let generations = &mount.generations;
    let generation = match number {
        None => generations.last(),
        Some(number) => generations.iter().find(|g| g.number == number),
    };
    let Some(generation) = generation else {
        let what = match number {
            Some(number) => format!("The cache mount `{}` has no generation {number}", mount.id),
            None => format!("The cache mount `{}` has no files yet", mount.id),
        };
        return Err(Failure::new(Class::User, what)
            .hint(format!("See `slipway cache mounts history {}`.", mount.id)));
    };
    let roots = [FilesRoot { platform: Platform::host(), root: generation.tree, time: None }];
    if output == Path::new("-") {
        return write_tar(&farm.blobs, &roots, &Place::Stdout).await;
    }
    match output.extension().is_some_and(|extension| extension == "tar") {
        true => {
            let place = Place::File(output.to_owned());
            write_tar(&farm.blobs, &roots, &place).await
        }
        false => write_directory(&farm.blobs, &roots, output, Split::Never).await,
    }
}
