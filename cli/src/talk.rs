//! One request of a person's, and its answers: the frame around all that is asked of a farm and is
//! not a build.

use cache::net::{NetError, Stream};
use proto::error::Failure;
use proto::wire::admin::{Asked, Input, Reply, Request};
use tokio::sync::mpsc;

/// Answers that wait before whoever sends one waits.
const OUTBOX: usize = 64;

/// Where a request's answers go, and what follows it comes from.
pub struct Talk {
    /// The answers, each with its payload.
    pub out: mpsc::Sender<(Reply, bytes::Bytes)>,
    /// What the person sends after the request. Its end: the person has gone.
    pub inputs: mpsc::Receiver<(Input, bytes::Bytes)>,
    /// The scope that the request narrows its own to.
    pub scope: Option<String>,
}

impl Talk {
    /// Sends an answer. Whoever does not listen any more is not waited for.
    pub async fn say(&self, reply: Reply) {
        let _ = self.out.send((reply, bytes::Bytes::new())).await;
    }
}

/// Serves one request, which `answer` answers.
pub async fn converse<F>(mut stream: Stream, answer: F) -> Result<(), NetError>
where
    F: AsyncFnOnce(Request, &mut Talk) -> Result<(), Failure>,
{
    let Some((Asked { scope, request }, _)) = stream.from.next::<Asked>().await? else {
        return Ok(());
    };
    let Stream { mut to, mut from } = stream;
    let (out, mut replies) = mpsc::channel(OUTBOX);
    let (put, inputs) = mpsc::channel(OUTBOX);
    let hear = async move {
        while let Ok(Some(input)) = from.next::<Input>().await {
            if put.send(input).await.is_err() {
                break;
            }
        }
        // Whoever asked has gone: what is being done for nobody is dropped.
    };
    let tell = async move {
        while let Some((reply, payload)) = replies.recv().await {
            to.send_with(&reply, &[payload]).await?;
        }
        Ok::<_, NetError>(())
    };
    let answered = async move {
        let mut talk = Talk { out, inputs, scope };
        let last = match answer(request, &mut talk).await {
            Ok(()) => Reply::Done,
            Err(failure) => Reply::Failed(failure),
        };
        talk.say(last).await;
    };
    tokio::select! {
        (told, ()) = async { tokio::join!(tell, answered) } => told,
        () = hear => Ok(()),
    }
}
