//! The messages that a server sends, as those of Zig 0.14 and ours do. Later releases of Zig have another
//! protocol: what is in their std says nothing about these.

pub const ToClientTag = enum(u8) {
    current_time = 0,
    source_index = 1,
    coverage_update = 2,
    entry_points = 3,
    // Those that Zig's own server does not send.
    coverage_delta = 16,
    history = 17,
    points = 18,
    _,
};

/// Behind it come the directories, the files, the locations and the bytes of the strings.
pub const SourceIndexHeader = extern struct {
    tag: u32,
    directories_len: u32,
    files_len: u32,
    source_locations_len: u32,
    string_bytes_len: u32,
    /// Nanoseconds.
    start_timestamp: i64 align(4),
};

/// The name is an offset in the bytes of the strings.
pub const File = extern struct { directory_index: u32, basename: u32 };

/// The file is an index, and `memory.none` if there is none.
pub const SourceLocation = extern struct { file: u32, line: u32, column: u32 };

/// Behind it come the bits of all locations.
pub const CoverageUpdateHeader = extern struct {
    tag: u64,
    n_runs: u64,
    unique_runs: u64,
};

/// Behind it come indexes of locations.
pub const EntryPointHeader = packed struct(u32) { tag: u8, locs_len: u24 };
