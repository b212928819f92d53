//! What workers ask of those for whom they work: secrets, agents, logins, files. A worker is
//! answered only what it needs for something that it was given to do.

use super::{Server, session};
use proto::error::{Class, Failure};
use proto::id::{BuildId, WorkerId};
use proto::step::{GIT_SSH_AGENT, MountKind, Op, is_by_ssh};
use proto::wire::build::{Answer, Ask};

impl Server {
    /// Answers what a worker asks in the name of a build, or of an errand.
    pub async fn asked(&self, worker: &WorkerId, id: &BuildId, ask: Ask) -> Answer {
        match self.may_ask(worker, id, &ask).await {
            Ok(true) => self.ask(id, ask).await,
            Ok(false) => {
                let failure = refused(worker, id, &ask);
                tracing::warn!("{failure}");
                Answer::Failed(failure)
            }
            Err(failure) => Answer::Failed(failure),
        }
    }

    async fn may_ask(&self, worker: &WorkerId, id: &BuildId, ask: &Ask) -> Result<bool, Failure> {
        let may = is_for_calls(ask) && self.workers.is_called(worker, id)
            || is_for_git(ask) && self.workers.is_called_by_ssh(worker, id);
        if may {
            return Ok(true);
        }
        // Whoever has a lease of an earlier life asks again as soon as it is back.
        let Some(build) = session::known(self, id).await else { return Err(ended(id)) };
        let (worker, ask, scope) = (worker.clone(), ask.clone(), build.who.scope.clone());
        let of = id.clone();
        let look = self
            .look(move |core, _| core.has_lease(&worker, &of, &scope, |op| is_for_step(&ask, op)));
        match look.await? {
            // Others may want the step, which is then done again in their name.
            false if build.is_over() => Err(ended(id)),
            may => Ok(may),
        }
    }
}

/// Whether calls need it.
fn is_for_calls(ask: &Ask) -> bool {
    match ask {
        Ask::Login(_) | Ask::Cache(_) | Ask::CacheBlobs(..) => true,
        Ask::Secret(_) | Ask::SshAgent(_) | Ask::Ssh { .. } => false,
        Ask::Scan { .. } | Ask::Layout { .. } => false,
    }
}

/// Whether it takes this to reach a git repository by ssh.
fn is_for_git(ask: &Ask) -> bool {
    matches!(ask, Ask::SshAgent(id) | Ask::Ssh { id, .. } if id == GIT_SSH_AGENT)
}

/// Whether whoever does such a step needs it.
fn is_for_step(ask: &Ask, op: &Op) -> bool {
    if let Op::Git(git) = op
        && is_for_git(ask)
    {
        return is_by_ssh(&git.remote);
    }
    let mounts = match op {
        Op::Run(run) => run.mounts.as_slice(),
        _ => &[],
    };
    let mut kinds = mounts.iter().map(|mount| &mount.kind);
    match ask {
        Ask::Secret(id) => kinds.any(|kind| matches!(kind, MountKind::Secret(s) if s.id == *id)),
        Ask::SshAgent(id) | Ask::Ssh { id, .. } => {
            kinds.any(|kind| matches!(kind, MountKind::Ssh(ssh) if ssh.id == *id))
        }
        Ask::Login(_) => true,
        // The coordinator asks for these itself, or calls do.
        Ask::Scan { .. } | Ask::Layout { .. } | Ask::Cache(_) | Ask::CacheBlobs(..) => false,
    }
}

/// What is asked for, where the client has nothing to move before it can answer. Files take as long
/// as they take.
pub fn at_hand(ask: &Ask) -> Option<String> {
    match ask {
        Ask::Secret(id) => Some(format!("the secret `{id}`")),
        Ask::Login(host) => Some(format!("a login for {host}")),
        Ask::SshAgent(id) | Ask::Ssh { id, .. } => Some(format!("the ssh agent `{id}`")),
        Ask::Scan { .. } | Ask::Layout { .. } | Ask::Cache(_) | Ask::CacheBlobs(..) => None,
    }
}

fn ended(id: &BuildId) -> Failure {
    Failure::new(Class::Unavailable, format!("The build {id} has ended"))
}

fn refused(worker: &WorkerId, id: &BuildId, ask: &Ask) -> Failure {
    let what = at_hand(ask).unwrap_or_else(|| "files of the client".to_owned());
    let message = format!(
        "The worker {worker} asked for {what} in the name of {id}, and does nothing for it that \
         needs this"
    );
    Failure::new(Class::Denied, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::world;
    use proto::secret::SecretBytes;
    use proto::step::{GitOp, Mount, SecretMount, SshMount};

    fn run() -> Op {
        let (id, required, mode, uid, gid) = ("token".to_owned(), true, 0o400, 0, 0);
        let secret = SecretMount { id, file: true, env: None, required, mode, uid, gid };
        let id = "default".to_owned();
        let ssh = SshMount { id, required, mode, uid, gid };
        let mount = |kind| Mount { target: "/m".to_owned(), input: None, kind };
        let Op::Run(mut op) = world::run("make") else { unreachable!("a RUN") };
        op.mounts = vec![mount(MountKind::Secret(secret)), mount(MountKind::Ssh(ssh))];
        Op::Run(op)
    }

    #[test]
    fn a_step_needs_what_its_mounts_name() {
        let secret = |id: &str| Ask::Secret(id.to_owned());
        let ssh = |id: &str| Ask::Ssh { id: id.to_owned(), request: SecretBytes::from(vec![11]) };
        assert!(is_for_step(&secret("token"), &run()));
        assert!(!is_for_step(&secret("default"), &run()) && !is_for_step(&ssh("token"), &run()));
        assert!(is_for_step(&ssh("default"), &run()));
        assert!(is_for_step(&Ask::SshAgent("default".to_owned()), &run()));
        assert!(!is_for_step(&secret("token"), &Op::Scratch));
        assert!(is_for_step(&Ask::Login("registry".to_owned()), &Op::Scratch));
        assert!(!is_for_step(&Ask::Cache(0), &run()) && is_for_calls(&Ask::Cache(0)));
        assert!(!is_for_calls(&secret("token")) && !is_for_calls(&ssh("default")));
    }

    #[test]
    fn only_repositories_that_are_reached_by_ssh_need_the_default_agent() {
        let ssh = |id: &str| Ask::Ssh { id: id.to_owned(), request: SecretBytes::from(vec![11]) };
        let git = |remote: &str| {
            let (reference, commit, subdir) = (String::new(), "c0ffee".to_owned(), String::new());
            let (remote, keep_git_dir, submodules) = (remote.to_owned(), false, false);
            Op::Git(GitOp { remote, reference, commit, subdir, keep_git_dir, submodules })
        };
        for remote in ["git@host:a/b", "ssh://git@host/a", "SSH://host/a"] {
            assert!(is_for_step(&ssh("default"), &git(remote)), "{remote}");
            assert!(is_for_step(&Ask::SshAgent("default".to_owned()), &git(remote)), "{remote}");
            assert!(!is_for_step(&ssh("other"), &git(remote)), "{remote}");
            assert!(!is_for_step(&Ask::Secret("default".to_owned()), &git(remote)), "{remote}");
        }
        assert!(!is_for_step(&ssh("default"), &git("https://host/a.git")));
        assert!(!is_for_step(&ssh("default"), &git("git://host/a.git")));
        assert!(is_for_git(&ssh("default")) && !is_for_git(&ssh("other")));
    }
}
