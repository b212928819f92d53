//! Fetching: what moves, and what is done about sources that fail.

use crate::common::content;
use crate::harness::{Disk, Edit, MIB, Source, Trouble, blobs, versions};
use cache::chunk::{FetchError, Moved, SourceError, fetch};
use cache::net::blobs::Blobs;
use cache::store::Store;
use cache::store::disk::Prune;
use cache::store::memory::MemoryStore;
use proto::chunk::ChunkListError;
use proto::error::Class;
use proto::id::BlobId;
use proto::limit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What goes over the wire beside the chunks: their list, and heads of frames.
const BESIDE: u64 = MIB / 16;

async fn get(
    here: &Disk,
    sources: &[Arc<Source>],
    id: BlobId,
    size: usize,
) -> Result<Moved, FetchError> {
    let sources: Vec<Blobs> = sources.iter().map(blobs).collect();
    fetch(&here.store, sources, id, size as u64).await
}

/// A blob in some stores, the same in each.
struct Spread {
    bytes: Vec<u8>,
    id: BlobId,
    stores: Vec<Disk>,
}

fn spread(seed: u64, mib: u64, stores: usize) -> Spread {
    let bytes = content(seed, (mib * MIB) as usize);
    let stores: Vec<Disk> = (0..stores).map(|_| Disk::new()).collect();
    let ids: Vec<BlobId> = stores.iter().map(|store| store.put(&bytes)).collect();
    Spread { bytes, id: ids[0], stores }
}

impl Spread {
    fn source(&self, n: usize, trouble: Trouble) -> Arc<Source> {
        Source::troubled(&self.stores[n].store, trouble)
    }

    async fn get(&self, here: &Disk, sources: &[Arc<Source>]) -> Result<Moved, FetchError> {
        get(here, sources, self.id, self.bytes.len()).await
    }
}

fn reasons(error: FetchError) -> Vec<(usize, SourceError)> {
    let text = error.to_string();
    match error {
        FetchError::Lost { reasons, .. } => {
            for (source, reason) in &reasons {
                assert!(text.contains(&format!("source {}: {reason}", source + 1)), "{text}");
            }
            reasons
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn of_what_changed_little_little_moves() {
    for edit in [Edit::InPlace, Edit::Insertion, Edit::Deletion] {
        let (here, there) = (Disk::new(), Disk::new());
        let versions = versions(5, 64 << 20, edit);
        // The first version moves whole, and its chunks are known from then on.
        let old = there.put(&versions.old);
        let source = Source::of(&there.store);
        let moved =
            get(&here, std::slice::from_ref(&source), old, versions.old.len()).await.unwrap();
        assert_eq!(moved, Moved { moved: 64 * MIB, reused: 0 });
        let first = source.received();
        assert!((64 * MIB..64 * MIB + BESIDE).contains(&first), "{first}");

        let new = there.put(&versions.new);
        let moved =
            get(&here, std::slice::from_ref(&source), new, versions.new.len()).await.unwrap();
        let wire = source.received() - first;
        println!("{edit:?}: {moved:?}, {wire} bytes of {}", versions.new.len());
        assert!(wire * 100 < 3 * versions.new.len() as u64, "{edit:?}: {wire}");
        assert!((moved.moved..moved.moved + BESIDE).contains(&wire));
        assert_eq!(moved.moved + moved.reused, versions.new.len() as u64);
        here.assert_has(&new, &versions.new);

        let again =
            get(&here, std::slice::from_ref(&source), new, versions.new.len()).await.unwrap();
        assert_eq!(again, Moved { moved: 0, reused: versions.new.len() as u64 });
        assert_eq!(source.received() - first, wire);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_the_same_over_and_over_moves_once() {
    let (here, there) = (Disk::new(), Disk::new());
    let zeros = vec![0; 64 << 20];
    let id = there.put(&zeros);
    let source = Source::of(&there.store);
    let moved = get(&here, &[source], id, zeros.len()).await.unwrap();
    assert_eq!(moved, Moved { moved: 2 * MIB, reused: 62 * MIB });
    here.assert_has(&id, &zeros);
}

#[tokio::test(start_paused = true)]
async fn small_and_empty_blobs_move_too() {
    for len in [0, 1, 300_000] {
        let (here, there) = (Disk::new(), Disk::new());
        let bytes = content(1, len);
        let id = there.put(&bytes);
        let moved = get(&here, &[Source::of(&there.store)], id, len).await.unwrap();
        assert_eq!(moved, Moved { moved: len as u64, reused: 0 });
        here.assert_has(&id, &bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn all_sources_give_a_part() {
    let (here, spread) = (Disk::new(), spread(1, 64, 3));
    let sources: Vec<_> = (0..3).map(|n| spread.source(n, Trouble::None)).collect();
    let moved = spread.get(&here, &sources).await.unwrap();
    here.assert_has(&spread.id, &spread.bytes);
    let each: Vec<u64> = sources.iter().map(|source| source.received()).collect();
    assert_eq!(moved.moved, 64 * MIB, "nothing came twice");
    assert!(each.iter().all(|bytes| *bytes > 6 * MIB), "{each:?}");
}

#[tokio::test(start_paused = true)]
async fn when_a_source_dies_the_others_go_on() {
    let (here, spread) = (Disk::new(), spread(2, 32, 3));
    let sources = [
        spread.source(0, Trouble::Dies(5 * MIB)),
        spread.source(1, Trouble::None),
        spread.source(2, Trouble::Dies(3 * MIB)),
    ];
    let moved = spread.get(&here, &sources).await.unwrap();
    here.assert_has(&spread.id, &spread.bytes);
    assert_eq!(moved, Moved { moved: 32 * MIB, reused: 0 }, "all that came was of use");
    let wire: u64 = sources.iter().map(|source| source.received()).sum();
    // What was on its way when a stream broke came in vain.
    assert!(wire < 32 * MIB + 4 * 2 * MIB + BESIDE, "{wire}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_and_comes_back_loses_little() {
    let (here, spread) = (Disk::new(), spread(3, 32, 1));
    let source = spread.source(0, Trouble::Breaks(5 * MIB));
    let moved = spread.get(&here, std::slice::from_ref(&source)).await.unwrap();
    here.assert_has(&spread.id, &spread.bytes);
    assert_eq!(moved, Moved { moved: 32 * MIB, reused: 0 });
    let (wire, dials) = (source.received(), source.dials.load(Ordering::SeqCst));
    assert!(dials >= 6 && wire < 32 * MIB + dials as u64 * 2 * MIB, "{wire} over {dials} streams");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_started_again_is_reached() {
    let (here, spread) = (Disk::new(), spread(12, 8, 1));
    let source = spread.source(0, Trouble::None);
    let client = blobs(&source);
    // Streams that nobody uses afterwards.
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.missing(vec![BlobId::of(b"x")], Vec::new()).await })
        })
        .collect();
    for one in asked {
        one.await.unwrap().unwrap();
    }
    assert_eq!(source.dials.load(Ordering::SeqCst), 8);
    source.restart();
    let size = spread.bytes.len() as u64;
    fetch(&here.store, vec![client], spread.id, size).await.unwrap();
    here.assert_has(&spread.id, &spread.bytes);
}

#[tokio::test(start_paused = true)]
async fn when_all_die_nothing_is_left() {
    let (here, spread) = (Disk::new(), spread(4, 32, 2));
    let sources =
        [spread.source(0, Trouble::Dies(9 * MIB)), spread.source(1, Trouble::Dies(4 * MIB))];
    let error = spread.get(&here, &sources).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    let reasons = reasons(error);
    assert_eq!(reasons.iter().map(|(source, _)| *source).collect::<Vec<_>>(), [0, 1]);
    assert!(reasons.iter().all(|(_, r)| r.to_string().contains("Cannot reach a dead source")));
    here.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn who_lies_is_not_asked_again() {
    let (here, spread) = (Disk::new(), spread(5, 32, 2));
    // Behind the list, in the first chunks.
    let liar = spread.source(0, Trouble::Flips(MIB));
    let sources = [liar.clone(), spread.source(1, Trouble::None)];
    crate::harness::listen();
    let moved = spread.get(&here, &sources).await.unwrap();
    here.assert_has(&spread.id, &spread.bytes);
    // Its other lane may have had a request under way.
    assert!(liar.received() <= 6 * MIB, "{}", liar.received());
    assert!(moved.moved <= 32 * MIB, "{moved:?}");
    let warned = crate::harness::warnings_of(&spread.id);
    assert!(matches!(&warned[..], [one] if one.contains("sent wrong bytes")), "{warned:?}");

    let (alone, liar) = (Disk::new(), spread.source(0, Trouble::Flips(MIB)));
    let error = spread.get(&alone, std::slice::from_ref(&liar)).await.unwrap_err();
    let reasons = reasons(error);
    assert!(matches!(&reasons[..], [(0, error)] if error.is_lie()), "{reasons:?}");
    assert!(liar.dials.load(Ordering::SeqCst) <= 2);
    alone.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_not_waited_for() {
    let (here, spread) = (Disk::new(), spread(6, 24, 2));
    for after in [0, 100, 3 * MIB] {
        let silent = spread.source(0, Trouble::Hangs(after));
        let moved = spread.get(&here, &[silent, spread.source(1, Trouble::None)]).await.unwrap();
        assert_eq!(moved.reused, 0);
        here.assert_has(&spread.id, &spread.bytes);
        here.disk.prune(Prune::All).unwrap();
        here.assert_empty();
    }
    for after in [0, 3 * MIB] {
        let silent = spread.source(0, Trouble::Hangs(after));
        let error = spread.get(&here, &[silent]).await.unwrap_err();
        assert!(error.to_string().contains("source 1: It sent nothing for 30 s"), "{error}");
        here.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_have_it_says_so() {
    let (here, empty, spread) = (Disk::new(), Disk::new(), spread(7, 8, 1));
    let nothing = Source::of(&empty.store);
    let error = spread.get(&here, &[nothing.clone(), nothing.clone()]).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("is not in the store"), "{error}");
    assert_eq!(reasons(error).len(), 2);
    let error = spread.get(&here, &[]).await.unwrap_err();
    assert!(error.to_string().contains("nobody is known who has it"), "{error}");
    here.assert_empty();
    let sources = [nothing, spread.source(0, Trouble::None)];
    spread.get(&here, &sources).await.unwrap();
    here.assert_has(&spread.id, &spread.bytes);
}

/// A source from whose store the blob is collected meanwhile.
fn forgetful(spread: &Spread, n: usize) -> Arc<Source> {
    let disk = spread.stores[n].disk.clone();
    let collect = move || {
        // What is being read while a collection runs is spared by that one.
        while disk.usage().unwrap().large.number > 0 {
            disk.prune(Prune::All).unwrap();
        }
    };
    spread.source(n, Trouble::Then(3 * MIB, Arc::new(collect)))
}

#[tokio::test(start_paused = true)]
async fn what_is_collected_meanwhile_comes_from_another() {
    let (here, spread) = (Disk::new(), spread(8, 32, 2));
    let sources = [forgetful(&spread, 0), spread.source(1, Trouble::None)];
    let moved = spread.get(&here, &sources).await.unwrap();
    assert_eq!(moved, Moved { moved: 32 * MIB, reused: 0 });
    here.assert_has(&spread.id, &spread.bytes);
    spread.stores[0].assert_empty();
    here.disk.prune(Prune::All).unwrap();

    let error = spread.get(&here, &[forgetful(&spread, 1)]).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("is not in the store"), "{error}");
    here.assert_empty();

    // One gives the list and dies, the other forgets: both are told of.
    let spread = self::spread(13, 32, 2);
    let sources = [spread.source(0, Trouble::Dies(5 * MIB)), forgetful(&spread, 1)];
    let reasons = reasons(spread.get(&here, &sources).await.unwrap_err());
    assert!(reasons[0].1.to_string().contains("Cannot reach"), "{reasons:?}");
    assert!(reasons[1].1.to_string().contains("is not in the store"), "{reasons:?}");
    here.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_here_comes_from_there() {
    let (here, there) = (Disk::new(), Disk::new());
    let versions = versions(9, 16 << 20, Edit::Insertion);
    let old = here.put_known(&versions.old);
    let new = there.put(&versions.new);
    let mut damaged = versions.old.clone();
    damaged[1_000_000] ^= 1;
    damaged[15_000_000] ^= 1;
    std::fs::write(here.file_of(&old), damaged).unwrap();
    let source = Source::of(&there.store);
    let moved = get(&here, &[source], new, versions.new.len()).await.unwrap();
    assert_eq!(moved.moved + moved.reused, versions.new.len() as u64);
    here.assert_has(&new, &versions.new);
    assert_eq!(here.store.missing_blobs(&[old]).unwrap(), [old], "it was found out");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_dropped_leaves_nothing() {
    let (here, spread) = (Disk::new(), spread(10, 24, 1));
    let silent = spread.source(0, Trouble::Hangs(8 * MIB));
    let sources = [silent];
    let fetching = spread.get(&here, &sources);
    assert!(tokio::time::timeout(Duration::from_secs(1), fetching).await.is_err());
    here.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_full_store_takes_nothing_and_says_so() {
    let spread = spread(11, 16, 1);
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = crate::common::options().limit(8 * MIB);
    let full = cache::store::DiskStore::open(&temp.path().join("store"), options).unwrap();
    let full: Arc<dyn Store> = Arc::new(full);
    let source = spread.source(0, Trouble::None);
    let size = spread.bytes.len() as u64;
    let error = fetch(&full, vec![blobs(&source)], spread.id, size).await.unwrap_err();
    assert_eq!(error.class(), Class::Busy);
    assert!(error.to_string().contains("limit of 8388608 bytes"), "{error}");
    assert_eq!(full.missing_blobs(&[spread.id]).unwrap(), [spread.id]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_refused_at_once() {
    let here = Disk::new();
    let size = limit::CHUNKED_BLOB_BYTES_MAX as usize + 1;
    let error = get(&here, &[], BlobId::of(b"x"), size).await.unwrap_err();
    let FetchError::TooLarge { why: ChunkListError::TooLarge { .. }, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(error.class(), Class::User);
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % below.max(1)
    }
}

/// Any number of sources with any troubles: if one of them is good the blob comes, and in any case
/// what comes is right and what does not come leaves nothing.
#[tokio::test(start_paused = true)]
async fn troubles_of_all_kinds_at_once() {
    let failed = AtomicUsize::new(0);
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let bytes = content(seed, dice.roll(9 * MIB) as usize);
        let there: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut writer = there.writer().unwrap();
        std::io::Write::write_all(&mut writer, &bytes).unwrap();
        let id = writer.finish(None).unwrap().0;
        let here: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let some = dice.roll(2);
        if some == 1 {
            let (old, _) = bytes.split_at(bytes.len() / 2);
            let mut writer = here.writer().unwrap();
            std::io::Write::write_all(&mut writer, old).unwrap();
            here.chunks(&writer.finish(None).unwrap().0).unwrap();
        }
        let mut troubles: Vec<Trouble> = (0..1 + dice.roll(3))
            .map(|_| {
                let at = dice.roll(10 * MIB);
                match dice.roll(4) {
                    0 => Trouble::Dies(at),
                    1 => Trouble::Hangs(at),
                    2 => Trouble::Flips(at),
                    _ => Trouble::Breaks(at),
                }
            })
            .collect();
        let good = dice.roll(2) == 1;
        if good {
            troubles.insert(dice.roll(1 + troubles.len() as u64) as usize, Trouble::None);
        }
        let sources: Vec<_> = troubles.into_iter().map(|t| Source::troubled(&there, t)).collect();
        let sources: Vec<Blobs> = sources.iter().map(blobs).collect();
        match fetch(&here, sources, id, bytes.len() as u64).await {
            Ok(_) => assert!(here.read(&id).unwrap() == bytes),
            Err(error) => {
                assert!(!good, "seed {seed}: {error}");
                failed.fetch_add(1, Ordering::SeqCst);
                assert_eq!(here.missing_blobs(&[id]).unwrap(), [id]);
            }
        }
    }
    let failed = failed.into_inner();
    assert!(failed > 0 && failed < 30, "{failed} of them could not");
}
