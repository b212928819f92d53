//! Ends that do not keep to what was agreed on.

use crate::common::content;
use crate::harness::{Disk, MIB, Server, Source, Trouble, binary, blobs, server};
use bytes::Bytes;
use cache::chunk::{SourceError, fetch};
use cache::net::chunks::PutError;
use cache::net::serve::Rights;
use cache::net::{NetError, Stream, local};
use proto::chunk::{Chunk, ChunkList};
use proto::error::Class;
use proto::id::BlobId;
use proto::limit;
use proto::wire::Service;
use proto::wire::blob::{Data, Reply, Request};
use std::sync::Arc;

/// Serves one blob under the name of another.
fn impostor(bytes: Vec<u8>, refuses: bool) -> Server {
    let list = cache::chunk::cut::cut(&bytes[..]).unwrap();
    let bytes = Bytes::from(bytes);
    Arc::new(move |mut stream: Stream| {
        let (list, bytes) = (list.clone(), bytes.clone());
        Box::pin(async move {
            while let Ok(Some((request, _))) = stream.from.next::<Request>().await {
                let sent = match request {
                    Request::GetChunkList(id) => {
                        stream.to.send(&Reply::Chunks).await.unwrap();
                        let list = list.prefix(list.chunks().len(), id).encode();
                        stream.to.send_with(&Data::Last, &[list.into()]).await
                    }
                    Request::GetChunks(_, chunks) if !refuses => {
                        for (n, chunk) in chunks.iter().enumerate() {
                            let last = n + 1 == chunks.len();
                            let data = if last { Data::Last } else { Data::More };
                            let at = chunk.offset as usize;
                            let some = bytes.slice(at..at + chunk.len as usize);
                            let _ = stream.to.send_with(&data, &[some]).await;
                        }
                        Ok(())
                    }
                    // It closes the stream.
                    _ => return,
                };
                if sent.is_err() {
                    return;
                }
            }
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_list_of_another_blob_is_found_out() {
    let bytes = content(1, 12 << 20);
    let there = Disk::new();
    let id = there.put(&bytes);
    for refuses in [false, true] {
        for honest in 0..3 {
            let here = Disk::new();
            let liar = impostor(content(2, 12 << 20), refuses);
            let mut sources: Vec<_> =
                (0..2).map(|_| Source::new(liar.clone(), Trouble::None)).collect();
            sources.insert(honest, Source::of(&there.store));
            let sources = sources.iter().map(blobs).collect();
            let moved = fetch(&here.store, sources, id, 12 * MIB).await.unwrap();
            here.assert_has(&id, &bytes);
            assert!(moved.moved <= 3 * 12 * MIB, "{moved:?}");
        }
    }
    let here = Disk::new();
    let liar = Source::new(impostor(content(2, 12 << 20), false), Trouble::None);
    let error = fetch(&here.store, vec![blobs(&liar)], id, 12 * MIB).await.unwrap_err();
    assert!(error.to_string().contains("its chunks together are not the blob"), "{error}");
    here.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_list_of_another_size_is_refused() {
    let here = Disk::new();
    let there = Disk::new();
    let id = there.put(&content(1, 3 << 20));
    let source = Source::of(&there.store);
    let error = fetch(&here.store, vec![blobs(&source)], id, 5 * MIB).await.unwrap_err();
    let cache::chunk::FetchError::Lost { reasons, .. } = error else { panic!("{error}") };
    assert!(matches!(&reasons[..], [(0, SourceError::WrongList(_))]), "{reasons:?}");
}

/// Answers every request with these frames.
fn parrot(
    frames: impl Fn(&mut Vec<(Data, Bytes)>) + Send + Sync + 'static,
    reply: Reply,
) -> Server {
    let frames = Arc::new(frames);
    Arc::new(move |mut stream: Stream| {
        let (frames, reply) = (frames.clone(), reply.clone());
        Box::pin(async move {
            while let Ok(Some((request, _))) = stream.from.next::<Request>().await {
                if !matches!(request, Request::GetChunks(..))
                    && stream.to.send(&reply).await.is_err()
                {
                    return;
                }
                let mut all = Vec::new();
                frames(&mut all);
                for (data, bytes) in all {
                    let _ = stream.to.send_with(&data, &[bytes]).await;
                }
            }
        })
    })
}

#[tokio::test(start_paused = true)]
async fn lists_that_are_none_are_refused() {
    type Frames = fn(&mut Vec<(Data, Bytes)>);
    let endless: Frames = |all| {
        let piece = Bytes::from(vec![1; limit::FRAME_PAYLOAD_BYTES_MAX]);
        all.extend((0..6).map(|_| (Data::More, piece.clone())));
    };
    let garbage: Frames = |all| all.push((Data::Last, Bytes::from_static(b"\x01 garbage")));
    let other: Frames = |all| {
        let list = ChunkList::new(BlobId::of(b"other"), 1, [(BlobId::of(b"y"), 1)].into_iter());
        all.push((Data::Last, list.unwrap().encode().into()));
    };
    for (frames, reply) in [
        (endless, Reply::Chunks),
        (garbage, Reply::Chunks),
        (other, Reply::Chunks),
        (garbage, Reply::Done),
    ] {
        let source = Source::new(parrot(frames, reply), Trouble::None);
        let error = blobs(&source).chunk_list(BlobId::of(b"x")).await.unwrap_err();
        assert!(matches!(error, NetError::Unexpected(_)), "{error}");
        assert!(source.received() < 64 * MIB);
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_that_do_not_fit_are_refused() {
    let bytes = [Bytes::from(content(1, 200_000)), Bytes::from(content(2, 300_000))];
    let chunk = |n: usize| Chunk {
        id: BlobId::of(&bytes[n]),
        offset: 200_000 * n as u64,
        len: bytes[n].len() as u32,
    };
    let asked = [chunk(0), chunk(1)];
    let (a, b) = (bytes[0].clone(), bytes[1].clone());
    let cases: [(&str, Vec<(Data, Bytes)>); 4] = [
        ("too few", vec![(Data::Last, a.clone())]),
        ("no end", vec![(Data::More, a.clone()), (Data::More, b.clone())]),
        ("swapped", vec![(Data::More, b.clone()), (Data::Last, a.clone())]),
        ("short", vec![(Data::More, a.clone()), (Data::Last, b.slice(1..))]),
    ];
    for (name, frames) in cases {
        let server = parrot(move |all| all.extend(frames.clone()), Reply::Done);
        let source = Source::new(server, Trouble::None);
        let take = |_, _| async { Ok(()) };
        let got = blobs(&source).get_chunks(BlobId::of(b"x"), &asked, take).await;
        assert!(matches!(got, Err(NetError::Unexpected(_))), "{name}: {got:?}");
    }
    let good = vec![(Data::More, a), (Data::Last, b)];
    let source =
        Source::new(parrot(move |all| all.extend(good.clone()), Reply::Done), Trouble::None);
    let mut places = Vec::new();
    let take = |place, _| {
        places.push(place);
        async { Ok(()) }
    };
    blobs(&source).get_chunks(BlobId::of(b"x"), &asked, take).await.unwrap();
    assert_eq!(places, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_wants_what_was_not_offered_gets_nothing() {
    let here = Disk::new();
    let id = here.put(&content(1, 5 << 20));
    for wanted in [vec![1, 0], vec![0, 0], vec![99]] {
        let source = Source::new(parrot(|_| {}, Reply::Wanted(wanted)), Trouble::None);
        let error = blobs(&source).put_chunked(&here.store, id).await.unwrap_err();
        assert!(matches!(error, PutError::Net(NetError::Unexpected(_))), "{error}");
    }
}

/// A stream to a server of this store, over which anything can be said.
async fn raw(there: &Disk) -> Stream {
    let (dialer, mut listener) = local::pair();
    let serve = server(there.store.clone(), Rights::Client);
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap();
        stream.accept().await.unwrap();
        let ready = proto::wire::Opened::Ready { binary: binary() };
        stream.to.send(&ready).await.unwrap();
        serve(stream).await;
    });
    let stream = cache::net::Dial::dial(&dialer).await.unwrap();
    stream.open(binary(), Service::Blobs).await.unwrap().stream
}

/// The stream still answers.
async fn assert_usable(stream: &mut Stream) {
    let ask = Request::FindMissing { blobs: vec![BlobId::of(b"none")], trees: Vec::new() };
    stream.to.send(&ask).await.unwrap();
    let (reply, _) = stream.from.expect::<Reply>().await.unwrap();
    assert!(matches!(reply, Reply::Missing { .. }), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn bad_requests_for_chunks_are_refused() {
    let there = Disk::new();
    let bytes = content(1, 5 << 20);
    let id = there.put(&bytes);
    let chunk = there.store.chunks(&id).unwrap().chunks()[0];
    let mut stream = raw(&there).await;
    let cases = [
        (vec![], Class::User),
        (vec![chunk; limit::CHUNKS_ASKED_MAX + 1], Class::User),
        (vec![Chunk { id, ..chunk }], Class::Unavailable),
        (vec![Chunk { offset: 1 << 40, ..chunk }], Class::Unavailable),
        (vec![Chunk { len: u32::MAX, ..chunk }], Class::Unavailable),
    ];
    for (chunks, class) in cases {
        stream.to.send(&Request::GetChunks(id, chunks)).await.unwrap();
        let (data, _) = stream.from.expect::<Data>().await.unwrap();
        assert!(matches!(&data, Data::Failed(failure) if failure.class == class), "{data:?}");
        assert_usable(&mut stream).await;
    }
    stream.to.send(&Request::GetChunks(BlobId::of(b"none"), vec![chunk])).await.unwrap();
    let (data, _) = stream.from.expect::<Data>().await.unwrap();
    assert!(matches!(&data, Data::Failed(failure) if failure.class == Class::Unavailable));
    there.assert_has(&id, &bytes);
}

#[tokio::test(start_paused = true)]
async fn bad_offers_are_refused() {
    let there = Disk::new();
    let bytes = content(1, 4 << 20);
    let list = cache::chunk::cut::cut(&bytes[..]).unwrap();
    let mut stream = raw(&there).await;
    let none = Bytes::from_static(b"no list");
    for (id, offer) in [(list.blob(), none), (BlobId::of(b"x"), list.encode().into())] {
        stream.to.send(&Request::PutChunks(id)).await.unwrap();
        stream.to.send_with(&Data::Last, &[offer]).await.unwrap();
        let (reply, _) = stream.from.expect::<Reply>().await.unwrap();
        assert!(matches!(&reply, Reply::Failed(f) if f.class == Class::Corrupt), "{reply:?}");
        assert_usable(&mut stream).await;
    }
    // The right list, and wrong bytes; then nothing but an excuse.
    let excuse = proto::error::Failure::new(Class::User, "no more");
    for wrong in [true, false] {
        stream.to.send(&Request::PutChunks(list.blob())).await.unwrap();
        stream.to.send_with(&Data::Last, &[list.encode().into()]).await.unwrap();
        let (reply, _) = stream.from.expect::<Reply>().await.unwrap();
        let Reply::Wanted(wanted) = reply else { panic!("{reply:?}") };
        assert_eq!(wanted.len(), list.chunks().len());
        let expected = if wrong {
            for chunk in list.chunks() {
                let zeros = Bytes::from(vec![0; chunk.len as usize]);
                stream.to.send_with(&Data::More, &[zeros]).await.unwrap();
            }
            Class::Corrupt
        } else {
            stream.to.send(&Data::Failed(excuse.clone())).await.unwrap();
            Class::User
        };
        let (reply, _) = stream.from.expect::<Reply>().await.unwrap();
        assert!(matches!(&reply, Reply::Failed(f) if f.class == expected), "{reply:?}");
        assert_usable(&mut stream).await;
    }
    there.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn right_chunks_that_are_not_the_blob_are_refused() {
    let there = Disk::new();
    let bytes = content(1, 4 << 20);
    let list = cache::chunk::cut::cut(&bytes[..]).unwrap();
    let claimed = BlobId::of(b"something else");
    let mut stream = raw(&there).await;
    stream.to.send(&Request::PutChunks(claimed)).await.unwrap();
    let claim = list.prefix(list.chunks().len(), claimed);
    stream.to.send_with(&Data::Last, &[claim.encode().into()]).await.unwrap();
    stream.from.expect::<Reply>().await.unwrap();
    for chunk in list.chunks() {
        let end = chunk.offset as usize + chunk.len as usize;
        let some = Bytes::copy_from_slice(&bytes[chunk.offset as usize..end]);
        stream.to.send_with(&Data::More, &[some]).await.unwrap();
    }
    let (reply, _) = stream.from.expect::<Reply>().await.unwrap();
    assert!(matches!(&reply, Reply::Failed(f) if f.class == Class::Corrupt), "{reply:?}");
    assert_usable(&mut stream).await;
    there.assert_empty();
}
