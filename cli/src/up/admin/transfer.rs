//! Images to and from registries and archives.

use super::images::{find, keep};
use super::{blocking, with_store};
use crate::error::user;
use crate::talk::Talk;
use crate::up::door::House;
use bytes::Bytes;
use cache::store::{Image, Store};
use proto::error::Failure;
use proto::id::{Millis, OciDigest};
use proto::platform::Platform;
use proto::wire::admin::{Input, Reply};
use proto::wire::build::{ArchiveFormat, Login, MediaTypes};
use proto::wire::worker::Moved;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use worker::image::archive::{self, Loaded, Source};
use worker::image::local::{self, How};
use worker::image::manifest::{Annotations, ImageSet};
use worker::image::registry::{
    Credentials, Freshness, LoginFuture, RegistryError, Session, parse_reference,
};
use worker::image::{Progress, pack, push as send};

/// Asks whoever sent the request for logins.
struct AskPerson {
    out: mpsc::Sender<(Reply, Bytes)>,
    inputs: Mutex<mpsc::Receiver<(Input, Bytes)>>,
}

impl AskPerson {
    async fn ask(&self, host: &str) -> Option<Login> {
        // One after the other: answers have no number.
        let mut inputs = self.inputs.lock().await;
        self.out.send((Reply::Ask(host.to_owned()), Bytes::new())).await.ok()?;
        match inputs.recv().await?.0 {
            Input::Login(login) => login,
            Input::Data | Input::End | Input::Signal(_) => None,
        }
    }
}

impl Credentials for AskPerson {
    fn login<'a>(&'a self, host: &'a str) -> LoginFuture<'a> {
        Box::pin(async move { Ok(self.ask(host).await) })
    }
}

fn session(house: &House, talk: &mut Talk) -> Session {
    let (_, none) = mpsc::channel(1);
    let inputs = Mutex::new(std::mem::replace(&mut talk.inputs, none));
    let person = AskPerson { out: talk.out.clone(), inputs };
    house.parts.worker.registry().session(Arc::new(person))
}

/// Tells of bytes that are moved.
fn progress(talk: &Talk) -> Progress {
    let out = talk.out.clone();
    Arc::new(move |digest: &OciDigest, current, total| {
        let what = format!("sha256:{}", digest.short());
        let moved = Moved { what, current, total, done: current >= total };
        // Only news: who is slow misses some.
        let _ = out.try_send((Reply::Moved(moved), Bytes::new()));
    })
}

fn registry_failure(error: &RegistryError) -> Failure {
    hinted(Failure::new(error.class(), error.to_string()), error.hint())
}

fn hinted(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// `Request::Pull`.
pub async fn pull(
    house: &House,
    talk: &mut Talk,
    text: &str,
    platform: Option<Platform>,
) -> Result<(), Failure> {
    let reference = parse_reference(text).map_err(|e| registry_failure(&e))?;
    let platform = platform.unwrap_or_else(|| house.platform.clone());
    let (session, progress) = (session(house, talk), progress(talk));
    let store: Arc<dyn Store> = house.parts.store.clone();
    let _pin = store.pin();
    let resolved = session.resolve(&store, &reference, &platform, Freshness::Ask).await;
    let resolved = resolved.map_err(|e| registry_failure(&e))?;
    let puller = house.parts.worker.puller();
    let layers = puller.layers(&session, &resolved, &progress).await;
    let layers = layers.map_err(|e| hinted(Failure::new(e.class(), e.to_string()), e.hint()))?;
    let top = resolved.top;
    with_store(house, move |store| {
        let now = Millis(crate::clock::now_ms());
        let image = local::pulled(store, &resolved, &layers, now);
        let image = image.map_err(|e| Failure::new(e.class(), e.to_string()))?;
        keep(store, &image, &[reference.to_string()])
    })
    .await?;
    talk.say(Reply::Text(top.to_string())).await;
    Ok(())
}

/// Docker's media types for an image that came with them, so that its digest stays the same.
fn media(image: &Image) -> MediaTypes {
    let docker = |l: &cache::store::ImageLayer| {
        l.original.as_ref().is_some_and(|(media, ..)| media.contains("vnd.docker"))
    };
    if image.layers.iter().any(docker) { MediaTypes::Docker } else { MediaTypes::Oci }
}

/// The image with all its layers packed.
async fn packed(house: &House, image: Image) -> Result<ImageSet, Failure> {
    let (store, worker) = (house.parts.store.clone(), house.parts.worker.clone());
    blocking(move || {
        let compression = pack::gzip(0).map_err(|e| user(e.to_string()))?;
        let how = How { compression, force: false, media: media(&image) };
        let made = local::export(&*store, worker.packer(), &image, how, &Annotations::new());
        made.map(ImageSet::single).map_err(|e| Failure::new(e.class(), e.to_string()))
    })
    .await
}

/// `Request::Push`.
pub async fn push(house: &House, talk: &mut Talk, text: String) -> Result<(), Failure> {
    let reference = parse_reference(&text).map_err(|e| registry_failure(&e))?;
    let name = reference.to_string();
    let image = with_store(house, move |store| match find(store, &name)? {
        (image, Some(_)) => Ok(image),
        (_, None) => Err(user(format!("There is no image with the name `{name}`"))
            .hint("Give it the name of its registry first: `slipway tag IMAGE NAME`.")),
    });
    let image = image.await?;
    let store: Arc<dyn Store> = house.parts.store.clone();
    let _pin = store.pin();
    let set = packed(house, image).await?;
    let (session, progress) = (session(house, talk), progress(talk));
    let pushed = send::push(&store, &session, &reference, &set, false, &progress).await;
    let pushed = pushed.map_err(|e| registry_failure(&e))?;
    talk.say(Reply::Text(pushed.digest.to_string())).await;
    Ok(())
}

/// `Request::Save`. What is packed for it stays in the store for a while: the person fetches it by
/// another stream.
pub async fn save(
    house: &House,
    talk: &Talk,
    names: Vec<String>,
    format: ArchiveFormat,
) -> Result<(), Failure> {
    let found = with_store(house, move |store| {
        names.iter().map(|name| find(store, name)).collect::<Result<Vec<_>, _>>()
    });
    let _pin = house.parts.store.pin();
    let mut sets: Vec<(ImageSet, Vec<String>)> = Vec::new();
    for (image, name) in found.await? {
        let id = image.id;
        match sets.iter_mut().find(|(set, _)| set.images[0].config.digest == id) {
            Some((_, names)) => names.extend(name),
            None => {
                cache::crash::reach(cache::crash::Phase::Export);
                sets.push((packed(house, image).await?, name.into_iter().collect()));
            }
        }
    }
    let plan = archive::plan_all(&sets, format);
    let plan = plan.map_err(|e| Failure::new(e.class(), e.to_string()))?;
    talk.say(Reply::Entries(plan)).await;
    Ok(())
}

/// An archive on its way.
struct Incoming {
    inputs: mpsc::Receiver<(Input, Bytes)>,
    current: Bytes,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.inputs.blocking_recv() {
                Some((Input::Data, bytes)) => self.current = bytes,
                Some((Input::End, _)) => self.ended = true,
                Some((Input::Signal(_) | Input::Login(_), _)) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// `Request::Load`.
pub async fn load(house: &House, talk: &mut Talk) -> Result<(), Failure> {
    let (_, none) = mpsc::channel(1);
    let inputs = std::mem::replace(&mut talk.inputs, none);
    let incoming = Incoming { inputs, current: Bytes::new(), ended: false };
    let platform = house.platform.clone();
    let _pin = house.parts.store.pin();
    let loaded = with_store(house, move |store| {
        let now = Millis(crate::clock::now_ms());
        let loaded = archive::load(store, Source::Tar(Box::new(incoming)), &platform, now);
        loaded.map_err(|e| Failure::new(e.class(), e.to_string()))
    });
    let loaded = loaded.await?;
    let said = with_store(house, move |store| {
        let mut said = Vec::new();
        for Loaded { names, image } in loaded {
            keep(store, &image, &names)?;
            if names.is_empty() {
                said.push(format!("Loaded image ID: {}", image.id));
            }
            let line = |name: &String| format!("Loaded image: {}", crate::images::familiar(name));
            said.extend(names.iter().map(line));
        }
        Ok(said)
    });
    for line in said.await? {
        talk.say(Reply::Text(line)).await;
    }
    Ok(())
}
