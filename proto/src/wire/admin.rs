//! Images, the cache and past builds: what the commands around `build` ask for.
