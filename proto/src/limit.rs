//! A bound for everything that comes from outside, in one place.

/// Bytes of one file name. Linux takes 255 (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of one symlink's target. Linux takes 4095 (`PATH_MAX` less its NUL).
pub const LINK_TARGET_BYTES_MAX: usize = 4095;

/// Entries of one directory. A directory of a million files is a node of about 80 MB.
pub const DIR_ENTRIES_MAX: usize = 1_000_000;

/// Bytes of one encoded directory node.
pub const NODE_BYTES_MAX: usize = 128 << 20;

/// Directories inside directories. Deeper than any path (`PATH_MAX` / 2) can name.
pub const TREE_DEPTH_MAX: usize = 2048;

/// Directories inside directories in a cache mount. No tool's cache comes near.
pub const CACHE_MOUNT_DEPTH_MAX: usize = 256;

/// Bytes of a cache mount's id.
pub const CACHE_MOUNT_ID_BYTES_MAX: usize = 4096;

/// Cache mounts that a farm knows; of more, those that were changed the longest ago are forgotten.
pub const CACHE_MOUNTS_MAX: usize = 10_000;

/// Extended attributes of one file.
pub const XATTRS_MAX: usize = 1024;

/// Bytes of one extended attribute's value. Linux takes 64 KiB (`XATTR_SIZE_MAX`).
pub const XATTR_BYTES_MAX: usize = 64 << 10;

/// Symlinks followed for one path. Linux takes 40.
pub const SYMLINKS_FOLLOWED_MAX: usize = 255;

/// Blobs up to this size are packed together; larger ones are files of their own.
pub const PACKED_BLOB_BYTES_MAX: usize = 256 << 10;

/// Bytes of a frame's header (an rkyv message).
pub const FRAME_HEADER_BYTES_MAX: usize = 16 << 20;

/// Bytes of a frame's payload (raw blob data).
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 8 << 20;

/// How many bytes of blobs go into one batch before it is sent.
pub const BATCH_BYTES: usize = 4 << 20;

/// How many ids one `FindMissing` may ask for.
pub const FIND_MISSING_MAX: usize = 100_000;

/// Bytes of a Dockerfile. BuildKit's own bound.
pub const DOCKERFILE_BYTES_MAX: usize = 16 << 20;

/// Bytes of one line of a Dockerfile. BuildKit's own bound (Go's `bufio.MaxScanTokenSize`).
pub const DOCKERFILE_LINE_BYTES_MAX: usize = 64 << 10;

/// Instructions of one Dockerfile: none can become more steps than [`STEPS_MAX`].
pub const DOCKERFILE_INSTRUCTIONS_MAX: usize = 100_000;

/// Words of one instruction of a Dockerfile.
pub const DOCKERFILE_WORDS_MAX: usize = 100_000;

/// Steps of one build.
pub const STEPS_MAX: usize = 100_000;

/// About how many bytes of memory the steps of one build may take: every RUN has a copy of its
/// environment, and every row of the history has the ARGs.
pub const GRAPH_BYTES_MAX: usize = 256 << 20;

/// Bytes of one step's log that are kept.
pub const STEP_LOG_BYTES_MAX: u64 = 1 << 30;

/// Bytes of one secret. BuildKit's own bound.
pub const SECRET_BYTES_MAX: usize = 500 << 10;

/// Bytes of one message to or from an ssh agent. OpenSSH's own bound (`AGENT_MAX_LEN`).
pub const SSH_MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Connections to one mounted ssh agent that are served at a time; more wait.
pub const SSH_CONNECTIONS_MAX: usize = 32;

/// Bytes of an image manifest, an index or an image config.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;

/// How many bytes one layer may unpack to, for each byte that it has compressed, before it is
/// taken for a bomb. Real layers stay below 100; a run of zeros in gzip reaches 1030.
pub const LAYER_EXPANSION_MAX: u64 = 2000;

/// How many bytes a layer may unpack to, however small it is: zstd packs zeros 30,000-fold, and a
/// file of zeros is legal.
pub const LAYER_EXPANSION_FREE_BYTES: u64 = 1 << 30;

/// Bytes of memory for the names and metadata of one layer that is being unpacked: about five
/// million entries.
pub const LAYER_TREE_BYTES_MAX: u64 = 1 << 30;

/// Entries of one layer.
pub const LAYER_ENTRIES_MAX: u64 = 20_000_000;

/// Layers of one image.
pub const IMAGE_LAYERS_MAX: usize = 500;

/// Directories under one overlay mount. The kernel takes 500 (`OVL_MAX_STACK`); beyond this number
/// the lowest ones are merged into one.
pub const OVERLAY_LOWERS_MAX: usize = 120;

/// How often a lost blob's step is run again before the build fails.
pub const REWINDS_MAX: u32 = 3;

/// Machines of one role in a farm.
pub const MEMBERS_MAX: usize = 10_000;

/// Rows of one kind that are told of how a farm is.
pub const OVERVIEW_ROWS_MAX: usize = 1000;

/// Copies of one blob in a farm.
pub const REPLICAS_MAX: u8 = 8;

/// How long a store keeps what was pinned after the pin's stream broke, in milliseconds: time for
/// whoever held it to come back.
pub const PIN_GRACE_MS: u64 = 60_000;

/// Bytes of a request for a certificate.
pub const CSR_BYTES_MAX: usize = 16 << 10;

/// Ranges that two nodes of a farm compare at once.
pub const RANGES_MAX: usize = 64;

/// Things in one range, for who compares, and in one answer that lists things.
pub const RANGE_ITEMS: usize = 4096;

/// Records and rows that one node asks another for, or tells it of, at once.
pub const ENTRIES_MAX: usize = 1024;

/// Bytes of records and rows in one answer, after which the rest is left out, to be asked for again.
pub const ENTRIES_BYTES: usize = 4 << 20;

/// Cache nodes of one farm.
pub const CACHE_NODES_MAX: usize = 1000;

/// Blobs up to this size move whole. Larger ones move by their chunks: what the other end has of
/// them, in this blob or in another, does not move.
pub const WHOLE_BLOB_BYTES_MAX: u64 = 2 << 20;

/// Bytes of every chunk of a blob but the last, at least.
pub const CHUNK_BYTES_MIN: usize = 128 << 10;

/// Bytes of a chunk, about.
pub const CHUNK_BYTES_AVERAGE: usize = 512 << 10;

/// Bytes of a chunk, at most: one fits into a frame's payload.
pub const CHUNK_BYTES_MAX: usize = 2 << 20;

/// Chunks of one blob. Their list takes 36 MiB.
pub const CHUNKS_MAX: usize = 1 << 20;

/// Bytes of a blob that can be moved by its chunks: 128 GiB. However it is cut, it has no more than
/// [`CHUNKS_MAX`] of them.
pub const CHUNKED_BLOB_BYTES_MAX: u64 = (CHUNKS_MAX * CHUNK_BYTES_MIN) as u64;

/// Chunks that one request may ask for.
pub const CHUNKS_ASKED_MAX: usize = 256;

/// Bytes of one entry of the log of decisions. What is larger is a blob, and the entry names it.
pub const LOG_ENTRY_BYTES_MAX: usize = 64 << 10;

/// Entries that are proposed to the log at once.
pub const LOG_PROPOSAL_ENTRIES_MAX: usize = 1024;

/// Bytes of the entries that are proposed to the log at once.
pub const LOG_PROPOSAL_BYTES_MAX: usize = 1 << 20;

/// Entries of a leader that are not committed yet; more have to wait.
pub const LOG_ENTRIES_IN_FLIGHT_MAX: usize = 4096;

/// Bytes of a leader's entries that are not committed yet; more have to wait.
pub const LOG_BYTES_IN_FLIGHT_MAX: usize = 4 << 20;

/// Bytes of one message between the members of the log, but for snapshots.
pub const LOG_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of one snapshot of what the log has led to.
pub const LOG_SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// Other workers that one is told of with a lease.
pub const PEERS_MAX: usize = 4;

/// Slots of one worker that count.
pub const WORKER_SLOTS_MAX: u32 = 4096;

/// Platforms of one worker that count.
pub const WORKER_PLATFORMS_MAX: usize = 32;

/// Shapes of steps of which is known how long they take: about 20 MB of memory.
pub const SHAPES_MAX: usize = 1 << 16;

/// Records of a cache outside of the farm, and layers that they name together: what the farm's parts
/// tell each other of it fits into one frame.
pub const CACHE_RECORDS_MAX: usize = 20_000;

/// Bytes of the config of such a cache.
pub const CACHE_CONFIG_BYTES_MAX: usize = 8 << 20;

/// Bytes of the manifest of such a cache. What registries take.
pub const CACHE_MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Such caches that one build takes from, and that it gives to.
pub const OUTSIDE_CACHES_MAX: usize = 100;

/// Builds of a scope of which is kept what their steps were made from.
pub const TRACES_MAX: usize = 64;

/// Bytes of what is kept of one of them.
pub const TRACE_BYTES_MAX: usize = 128 << 10;
