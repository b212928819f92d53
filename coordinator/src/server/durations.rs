//! How long steps took, written down now and then, so that the next process expects the same. It is
//! a hint: without it steps are placed less well, and nothing else.

use super::{Server, blocking};
use crate::core::Core;
use crate::core::place::History;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is written down, if something was learnt.
const EVERY: Duration = Duration::from_secs(30);

/// What an earlier process had learnt. Whatever cannot be read is as if there were nothing.
pub fn load(file: &Path) -> History {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return History::default(),
        Err(e) => {
            tracing::warn!(file = %file.display(), "how long steps took cannot be read: {e}");
            return History::default();
        }
    };
    History::from_bytes(&bytes).unwrap_or_else(|e| {
        tracing::warn!(file = %file.display(), "{e}: it begins anew");
        History::default()
    })
}

/// Writes it down, for as long as the core decides.
pub async fn keep(server: Arc<Server>, file: PathBuf) {
    let mut kept = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let news = move |core: &Core, _| {
            let history = core.history();
            (history.learnt() != kept).then(|| (history.learnt(), history.rows()))
        };
        let Ok(news) = server.look(news).await else { return };
        let Some((learnt, rows)) = news else { continue };
        let to = file.clone();
        match blocking(move || replace(&to, &rows.to_bytes())).await {
            Ok(()) => kept = learnt,
            Err(e) => {
                tracing::warn!(file = %file.display(), "how long steps took cannot be kept: {e}");
            }
        }
    }
}

/// Whole or not at all; it need not outlive a loss of power.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let early = file.with_extension("part");
    std::fs::write(&early, bytes)?;
    std::fs::rename(early, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::ShapeKey;
    use proto::record::Cost;

    #[test]
    fn what_was_learnt_is_known_again_and_damage_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("durations");
        assert!(load(&file).is_empty());
        let (shape, mut history) = (ShapeKey::from_bytes([7; 32]), History::default());
        history.learn(shape, &Cost { wall_ms: 90_000, ..Cost::default() });
        replace(&file, &history.rows().to_bytes()).unwrap();
        assert_eq!(load(&file).get(&shape), history.get(&shape));
        std::fs::write(&file, &history.rows().to_bytes()[..20]).unwrap();
        assert!(load(&file).is_empty());
    }
}
