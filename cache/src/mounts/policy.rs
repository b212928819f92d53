//! What a union and a cap do with single files; what becomes of a whole tree says
//! [`Policy`](super::Policy).

/// What a union makes of a path that one side deleted and the other left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deletes {
    /// It stays: what one step cleans up, another may have found worth keeping.
    Keep,
    /// It goes, as it would in a directory that both work in.
    Follow,
}

/// What a union does with paths that a pattern names, in place of its ordinary rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Locks, temporary files, logs: no step's changes to it are kept ([`super::admit()`]).
    Skip,
    /// A text that only grows: changed by both, it has the lines of both.
    Lines,
    /// A file about the whole cache: the newest is kept, whoever wrote it, even the unchanged one.
    Newer,
    /// One of several files that belong together: changed by both, the head's is kept, so that all
    /// of them come from one step.
    Theirs,
}

/// What goes first when a mount is over its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trim {
    /// The oldest files and packages: the tool takes what is left for a smaller cache.
    Oldest,
    /// Everything: with some of its files gone the cache would be a broken one.
    Everything,
}
