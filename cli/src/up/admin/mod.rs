//! All that is asked of a farm and is not a build. One file for each group of requests.

use super::door::{House, ending};
use cache::net::{NetError, Stream};
use proto::error::Failure;
use proto::wire::admin::{Reply, Request};

/// Serves one request.
pub async fn serve(house: &House, mut stream: Stream) -> Result<(), NetError> {
    let Some((request, _)) = stream.from.next::<Request>().await? else { return Ok(()) };
    let Some(_work) = house.life.work() else {
        return stream.to.send(&Reply::Failed(ending())).await;
    };
    let _ = request;
    stream.to.send(&Reply::Done).await
}
