//! Images to and from registries and archives. Workers do it; whoever asked is asked for logins.

use super::images::reference;
use crate::talk::Talk;
use bytes::Bytes;
use coordinator::server::{Images, Person};
use proto::error::{Class, Failure};
use proto::id::BlobId;
use proto::platform::Platform;
use proto::wire::admin::{Input, Reply};
use proto::wire::build::{Answer, ArchiveFormat, Ask};
use std::pin::pin;

/// Works for whoever talks, who is asked for logins meanwhile, and told what is moved.
async fn with_person<T>(
    talk: &mut Talk,
    work: impl AsyncFnOnce(Person) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (person, mut heard) = Person::new();
    let mut working = pin!(work(person));
    loop {
        tokio::select! {
            done = &mut working => return done,
            Some((ask, answer)) = heard.asks.recv() => {
                // One after the other: answers of people have no number.
                let _ = answer.send(look_up(talk, ask).await);
            }
            Some(moved) = heard.moved.recv() => {
                // Only news: who is slow misses some.
                let _ = talk.out.try_send((Reply::Moved(moved), Bytes::new()));
            }
        }
    }
}

async fn look_up(talk: &mut Talk, ask: Ask) -> Answer {
    let Ask::Login(host) = ask else {
        return Answer::Failed(Failure::new(Class::Bug, "Only logins can be asked for here"));
    };
    talk.say(Reply::Ask(host)).await;
    match talk.inputs.recv().await {
        Some((Input::Login(login), _)) => Answer::Login(login),
        _ => Answer::Login(None),
    }
}

/// `Request::Pull`.
pub async fn pull(
    images: &Images,
    talk: &mut Talk,
    text: &str,
    platform: Option<Platform>,
) -> Result<(), Failure> {
    let reference = reference(text)?;
    let pulled = with_person(talk, async |person| images.pull(&reference, platform, person).await);
    let digest = pulled.await?;
    talk.say(Reply::Text(digest.to_string())).await;
    Ok(())
}

/// `Request::Push`.
pub async fn push(images: &Images, talk: &mut Talk, text: &str) -> Result<(), Failure> {
    let reference = reference(text)?;
    let pushed = with_person(talk, async |person| images.push(&reference, person).await);
    let digest = pushed.await?;
    talk.say(Reply::Text(digest.to_string())).await;
    Ok(())
}

/// `Request::Save`. What is packed for it stays in the store for a while: the person fetches it by
/// another stream.
pub async fn save(
    images: &Images,
    talk: &mut Talk,
    names: &[String],
    format: ArchiveFormat,
) -> Result<(), Failure> {
    let saved = with_person(talk, async |person| images.save(names, format, person).await);
    let plan = saved.await?;
    talk.say(Reply::Entries(plan)).await;
    Ok(())
}

/// `Request::Load`.
pub async fn load(images: &Images, talk: &mut Talk, archive: BlobId) -> Result<(), Failure> {
    let loaded = with_person(talk, async |person| images.load(archive, person).await);
    for (id, names) in loaded.await? {
        if names.is_empty() {
            talk.say(Reply::Text(format!("Loaded image ID: {id}"))).await;
        }
        for name in &names {
            let line = format!("Loaded image: {}", crate::images::familiar(name));
            talk.say(Reply::Text(line)).await;
        }
    }
    Ok(())
}
