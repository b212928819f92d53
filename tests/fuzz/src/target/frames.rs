//! Frames of the wire. The first byte of an input says which message is expected.

use super::Target;
use cache::net::{NetError, Stream};
use proto::chunk::Chunk;
use proto::error::{Class, Failure};
use proto::id::{BlobId, BuildId, Millis};
use proto::wire::{self, Binary, Message, Open, Opened, Service, admin, blob, build, worker};

pub struct Frames;

const WORDS: &[&[u8]] = &[
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\0\x10\0",
    b"\x08\0\0\0",
    b"\xf8\xff\xff\xff",
    b"\x80\0\0\0",
    b"\x01",
    b"\x7f",
];

impl Target for Frames {
    fn name(&self) -> &'static str {
        "frames"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let binary = Binary { version: "1.2.3".into(), modified_ms: 4 };
        let open = Open { version: wire::VERSION, binary: binary.clone(), service: Service::Build };
        let failure = Failure::new(Class::User, "what").hint("why");
        let id = BlobId::from_bytes([1; 32]);
        let name = BuildId::parse("bcdfghjkmnbc").expect("a name");
        let log = build::Event::Log {
            vertex: build::VertexId(3),
            stream: build::Stream::Stdout,
            at: Millis(7),
            data: b"text".to_vec(),
        };
        let answer = build::Answer::Secret(Some(b"secret".to_vec().into()));
        let request = b"request".to_vec().into();
        let ask = build::Ask::Ssh { id: "default".into(), request };
        vec![
            frame(0, &open, b""),
            frame(1, &Opened::Ready { binary }, b""),
            frame(1, &Opened::Refused(failure.clone()), b""),
            frame(2, &build::ToCoordinator::Answer(1, answer), b""),
            frame(2, &build::ToCoordinator::Cancel, b"payload"),
            frame(3, &build::ToClient::Accepted(name, 1), b""),
            frame(3, &build::ToClient::Event(1, None, log), b""),
            frame(3, &build::ToClient::Ask(1, ask), b""),
            frame(3, &build::ToClient::Finished(Box::new(Err(failure))), b""),
            frame(4, &blob::Request::GetLarge(id, 0), b""),
            frame(4, &blob::Request::GetChunkList(id), b""),
            frame(4, &blob::Request::GetChunks(id, vec![Chunk { id, offset: 7, len: 9 }; 2]), b""),
            frame(4, &blob::Request::PutChunks(id), b""),
            frame(5, &blob::Reply::Chunks, b""),
            frame(5, &blob::Reply::Wanted(vec![0, 1, u32::MAX]), b""),
            frame(10, &blob::Data::Last, b"bytes"),
        ]
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        let Some((which, bytes)) = input.split_first() else { return false };
        match which % 11 {
            0 => read::<Open>(bytes),
            1 => read::<Opened>(bytes),
            2 => read::<build::ToCoordinator>(bytes),
            3 => read::<build::ToClient>(bytes),
            4 => read::<blob::Request>(bytes),
            5 => read::<blob::Reply>(bytes),
            6 => read::<admin::Request>(bytes),
            7 => read::<admin::Reply>(bytes),
            8 => read::<worker::ToCoordinator>(bytes),
            10 => read::<blob::Data>(bytes),
            _ => read::<worker::ToWorker>(bytes),
        }
    }
}

fn frame<M: Message>(which: u8, message: &M, payload: &[u8]) -> Vec<u8> {
    let header = wire::encode(message).expect("a small message");
    let prefix = wire::prefix(header.len(), payload.len()).expect("a small frame");
    [&[which], &prefix[..], &header, payload].concat()
}

/// Reads frames until the end or the first bad one. Answers whether there was a good one.
fn read<M: Message>(bytes: &[u8]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let input = std::io::Cursor::new(bytes.to_vec());
    let mut stream = Stream::new(input, tokio::io::sink());
    let mut count = 0;
    runtime.block_on(async {
        loop {
            match stream.from.next::<M>().await {
                Ok(Some((message, payload))) => {
                    count += 1;
                    assert!(payload.len() <= bytes.len());
                    // What was read can be said again.
                    wire::encode(&message).expect("a message that was read");
                }
                Ok(None) => break,
                Err(NetError::Frame(_) | NetError::Closed) => break,
                Err(e) => panic!("bytes in memory cannot fail so: {e}"),
            }
        }
    });
    count > 0
}
