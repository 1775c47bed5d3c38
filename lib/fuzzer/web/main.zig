//! The half of the page that reads bytes: it parses the server's messages and
//! its tar of sources, and answers the questions that main.js asks in order to
//! draw. It knows nothing of the document.
//!
//! Bytes arrive in one place: main.js asks `inbox` for room, fills it, and calls
//! `receive` for a message or `unpack` for a tar. Both keep the buffer instead
//! of copying it when its content is worth keeping.
//!
//! Nothing from outside is believed before it is measured: a message of the
//! wrong length is refused as a whole, and a number that points nowhere (a file
//! without a directory, a location without a file) is shown as such. A trap here
//! would leave the page dead until it is reloaded.
//!
//! A slice that is handed to main.js stays valid until the next call.

const std = @import("std");
const Ast = std.zig.Ast;
const Coverage = std.debug.Coverage;
const abi = std.Build.Fuzz.abi;
const gpa = std.heap.wasm_allocator;

const Walk = @import("Walk");
const html_render = @import("html_render");

const js = struct {
    /// Milliseconds, of a clock that does not jump.
    extern "js" fn clock() f64;
    extern "js" fn log(ptr: [*]const u8, len: usize) void;
};

pub const std_options: std.Options = .{ .logFn = logToConsole };
pub const panic = std.debug.FullPanic(panicToConsole);

fn logToConsole(
    comptime level: std.log.Level,
    comptime _: @TypeOf(.enum_literal),
    comptime format: []const u8,
    args: anytype,
) void {
    var buffer: [500]u8 = undefined;
    const text = comptime level.asText() ++ ": " ++ format;
    const line = std.fmt.bufPrint(&buffer, text, args) catch &buffer;
    js.log(line.ptr, line.len);
}

fn panicToConsole(message: []const u8, _: ?usize) noreturn {
    js.log(message.ptr, message.len);
    @trap();
}

/// Crosses to main.js as one 64-bit integer: pointer low, length high.
fn Slice(T: type) type {
    return packed struct(u64) {
        ptr: u32,
        len: u32,

        fn init(items: []const T) @This() {
            // An empty slice may point anywhere, which a typed array does not take.
            if (items.len == 0) return .{ .ptr = 0, .len = 0 };
            return .{ .ptr = @intFromPtr(items.ptr), .len = items.len };
        }
    };
}

const Text = Slice(u8);
/// The alignment is the largest that a message needs: the seen bits are words of 64.
const Bytes = std.ArrayListAlignedUnmanaged(u8, @alignOf(u64));
const Html = std.ArrayListUnmanaged(u8);

/// What came last, until `receive` or `unpack` has dealt with it.
var inbox_bytes: Bytes = .empty;
/// What the last call that returns text has written.
var text_result: Html = .empty;

var index: Index = .empty;
/// One bit for each location, kept for `locationCovered`.
var seen: []u64 = &.{};
var covered_total: u32 = 0;
var n_runs: u64 = 0;
var unique_runs: u64 = 0;
var entry_points: std.ArrayListUnmanaged(u32) = .empty;

/// The server's clock in nanoseconds, at the moment `client_base` of ours.
var server_base: i64 = 0;
var client_base: f64 = 0;
/// When the numbers in `n_runs` and `unique_runs` arrived.
var last_update: f64 = 0;

/// All sources, as they came; `sources` points into it.
var tar_bytes: Bytes = .empty;
var sources: std.StringHashMapUnmanaged([]const u8) = .empty;
/// The names in `sources`, which may differ from those in the tar.
var source_names = std.heap.ArenaAllocator.init(gpa);

// ---------------------------------------------------------------- messages

export fn inbox(len: usize) [*]u8 {
    inbox_bytes.resize(gpa, len) catch @panic("out of memory");
    return inbox_bytes.items.ptr;
}

/// What a message has changed, so that main.js draws that and nothing else.
/// The numbers are repeated in main.js.
const Received = enum(u32) {
    malformed = 0,
    unknown = 1,
    time = 2,
    same_index = 3,
    new_index = 4,
    coverage = 5,
    entry_points = 6,
};

export fn receive() Received {
    const bytes = inbox_bytes.items;
    if (bytes.len == 0) return .malformed;
    return switch (@as(abi.ToClientTag, @enumFromInt(bytes[0]))) {
        .current_time => receiveTime(bytes),
        .source_index => receiveIndex(),
        .coverage_update => receiveCoverage(bytes),
        .entry_points => receiveEntryPoints(bytes),
        _ => .unknown,
    } catch |err| switch (err) {
        error.Malformed => .malformed,
        error.OutOfMemory => @panic("out of memory"),
    };
}

const ReceiveError = error{ Malformed, OutOfMemory };

fn receiveTime(bytes: []const u8) ReceiveError!Received {
    if (bytes.len != 1 + @sizeOf(i64)) return error.Malformed;
    server_base = std.mem.readInt(i64, bytes[1..][0..8], .little);
    client_base = js.clock();
    return .time;
}

fn receiveIndex() ReceiveError!Received {
    // The same executable gives the same bytes, but for the time at which its
    // fuzzing started: another start is no reason to draw everything again.
    const Header = abi.SourceIndexHeader;
    const time_start = @offsetOf(Header, "start_timestamp");
    const old = index.bytes.items;
    const new = inbox_bytes.items;
    const is_same = old.len != 0 and old.len == new.len and
        std.mem.eql(u8, old[0..time_start], new[0..time_start]) and
        std.mem.eql(u8, old[@sizeOf(Header)..], new[@sizeOf(Header)..]);

    const next = try Index.parse(inbox_bytes);
    // The new index owns the message now.
    inbox_bytes = .empty;
    index.deinit();
    index = next;
    if (is_same) {
        covered_total = index.count(seen);
        return .same_index;
    }
    gpa.free(seen);
    seen = &.{};
    covered_total = 0;
    n_runs = 0;
    unique_runs = 0;
    entry_points.clearRetainingCapacity();
    return .new_index;
}

fn receiveCoverage(bytes: []align(8) const u8) ReceiveError!Received {
    const Header = abi.CoverageUpdateHeader;
    const n_words = std.math.divCeil(usize, index.locations.len, 64) catch unreachable;
    if (bytes.len != @sizeOf(Header) + n_words * @sizeOf(u64)) return error.Malformed;
    const header: *const Header = @ptrCast(bytes[0..@sizeOf(Header)]);
    n_runs = header.n_runs;
    unique_runs = header.unique_runs;
    last_update = js.clock();

    if (seen.len != n_words) seen = try gpa.realloc(seen, n_words);
    @memcpy(std.mem.sliceAsBytes(seen), bytes[@sizeOf(Header)..]);
    covered_total = index.count(seen);
    return .coverage;
}

fn receiveEntryPoints(bytes: []align(8) const u8) ReceiveError!Received {
    const Header = abi.EntryPointHeader;
    if (bytes.len < @sizeOf(Header)) return error.Malformed;
    const header: *const Header = @ptrCast(bytes[0..@sizeOf(Header)]);
    const body = bytes[@sizeOf(Header)..];
    if (body.len != @as(usize, header.flags.locs_len) * @sizeOf(u32)) return error.Malformed;
    const items: []const u32 = @alignCast(std.mem.bytesAsSlice(u32, body));
    entry_points.clearRetainingCapacity();
    try entry_points.appendSlice(gpa, items);
    return .entry_points;
}

/// A source index message, and its locations grouped by file.
const Index = struct {
    /// The message, into which the next four fields point.
    bytes: Bytes,
    directories: []const u32,
    files: []const Coverage.File,
    locations: []const Coverage.SourceLocation,
    strings: []const u8,
    start_timestamp: i64,

    /// Indexes of locations, group after group. There is a group for each file,
    /// and a last one for the locations that belong to no file.
    grouped: []u32,
    /// Where each group starts in `grouped`, and at the end where the last stops.
    group_starts: []u32,
    /// How many locations of each group are covered.
    group_covered: []u32,

    const empty: Index = .{
        .bytes = .empty,
        .directories = &.{},
        .files = &.{},
        .locations = &.{},
        .strings = &.{},
        .start_timestamp = 0,
        .grouped = &.{},
        .group_starts = &.{},
        .group_covered = &.{},
    };

    /// Takes ownership of `message` if it succeeds.
    fn parse(message: Bytes) ReceiveError!Index {
        const Header = abi.SourceIndexHeader;
        const items: []align(8) const u8 = message.items;
        if (items.len < @sizeOf(Header)) return error.Malformed;
        const header: *align(4) const Header = @ptrCast(items[0..@sizeOf(Header)]);
        var rest: []align(4) const u8 = @alignCast(items[@sizeOf(Header)..]);
        var result: Index = .empty;
        result.bytes = message;
        result.directories = try take(u32, &rest, header.directories_len);
        result.files = try take(Coverage.File, &rest, header.files_len);
        result.locations = try take(Coverage.SourceLocation, &rest, header.source_locations_len);
        result.strings = rest;
        result.start_timestamp = header.start_timestamp;
        if (rest.len != header.string_bytes_len) return error.Malformed;
        try result.group();
        return result;
    }

    fn take(T: type, rest: *[]align(4) const u8, len: u32) error{Malformed}![]const T {
        const n_bytes = @as(u64, len) * @sizeOf(T);
        if (n_bytes > rest.len) return error.Malformed;
        const taken = rest.*[0..@intCast(n_bytes)];
        rest.* = @alignCast(rest.*[taken.len..]);
        return @alignCast(std.mem.bytesAsSlice(T, taken));
    }

    /// Sorts by counting: a million locations in two passes.
    fn group(x: *Index) error{OutOfMemory}!void {
        const n_groups = x.files.len + 1;
        x.grouped = try gpa.alloc(u32, x.locations.len);
        errdefer gpa.free(x.grouped);
        x.group_starts = try gpa.alloc(u32, n_groups + 1);
        errdefer gpa.free(x.group_starts);
        x.group_covered = try gpa.alloc(u32, n_groups);
        @memset(x.group_covered, 0);

        // Each element first counts the group before it, then is summed up.
        @memset(x.group_starts, 0);
        for (x.locations) |location| x.group_starts[x.groupOf(location) + 1] += 1;
        for (x.group_starts[1..], 0..) |*start, i| start.* += x.group_starts[i];
        for (x.locations, 0..) |location, i| {
            const g = x.groupOf(location);
            x.grouped[x.group_starts[g] + x.group_covered[g]] = @intCast(i);
            x.group_covered[g] += 1;
        }
        @memset(x.group_covered, 0);
    }

    fn groupOf(x: *const Index, location: Coverage.SourceLocation) usize {
        return @min(@intFromEnum(location.file), x.files.len);
    }

    /// The locations of one file by line and column. Sorted when asked for,
    /// since most files are never opened; sorting again costs one pass.
    fn ofFile(x: *Index, file: usize) []const u32 {
        if (file >= x.group_covered.len) return &.{};
        const items = x.grouped[x.group_starts[file]..x.group_starts[file + 1]];
        std.mem.sort(u32, items, x.locations, struct {
            fn lessThan(locations: []const Coverage.SourceLocation, a: u32, b: u32) bool {
                const left = locations[a];
                const right = locations[b];
                if (left.line != right.line) return left.line < right.line;
                if (left.column != right.column) return left.column < right.column;
                return a < b;
            }
        }.lessThan);
        return items;
    }

    /// Counts the covered locations of each group and returns their sum.
    fn count(x: *Index, words: []const u64) u32 {
        @memset(x.group_covered, 0);
        var sum: u32 = 0;
        for (words, 0..) |word, word_index| {
            var left = word;
            while (left != 0) : (left &= left - 1) {
                const i = word_index * 64 + @ctz(left);
                // The last word may have bits to spare.
                if (i >= x.locations.len) break;
                x.group_covered[x.groupOf(x.locations[i])] += 1;
                sum += 1;
            }
        }
        return sum;
    }

    fn appendPath(x: *const Index, out: *Html, file: Coverage.File) error{OutOfMemory}!void {
        if (file.directory_index < x.directories.len) {
            const directory = x.string(x.directories[file.directory_index]);
            try out.appendSlice(gpa, directory);
            if (!std.mem.endsWith(u8, directory, "/")) try out.append(gpa, '/');
        }
        try out.appendSlice(gpa, x.string(@intFromEnum(file.basename)));
    }

    fn string(x: *const Index, offset: u32) []const u8 {
        if (offset >= x.strings.len) return "?";
        return std.mem.sliceTo(x.strings[offset..], 0);
    }

    fn deinit(x: *Index) void {
        x.bytes.deinit(gpa);
        gpa.free(x.grouped);
        gpa.free(x.group_starts);
        gpa.free(x.group_covered);
    }
};

// ------------------------------------------------------------------ answers

export fn totalRuns() u64 {
    return n_runs;
}

export fn uniqueRuns() u64 {
    return unique_runs;
}

/// How long the fuzzer had been running when it last reported, in seconds.
export fn fuzzedSeconds() f64 {
    const server: f64 = @floatFromInt(server_base -| index.start_timestamp);
    return server / std.time.ns_per_s + (last_update - client_base) / std.time.ms_per_s;
}

export fn entryPoints() Slice(u32) {
    return .init(entry_points.items);
}

export fn locationCount() usize {
    return index.locations.len;
}

export fn coveredCount() u32 {
    return covered_total;
}

/// A location that does not exist, or has no file, gives `fileCount()`.
export fn locationFile(i: u32) usize {
    if (i >= index.locations.len) return index.files.len;
    return index.groupOf(index.locations[i]);
}

export fn locationLine(i: u32) u32 {
    return if (i < index.locations.len) index.locations[i].line else 0;
}

export fn locationColumn(i: u32) u32 {
    return if (i < index.locations.len) index.locations[i].column else 0;
}

export fn locationCovered(i: u32) bool {
    if (i >= index.locations.len or i / 64 >= seen.len) return false;
    return seen[i / 64] >> @intCast(i % 64) & 1 != 0;
}

export fn fileCount() usize {
    return index.files.len;
}

/// In this and the next two, `fileCount()` stands for the locations without a file.
export fn fileLocations(file: u32) Slice(u32) {
    return .init(index.ofFile(file));
}

export fn fileTotal(file: u32) u32 {
    if (file >= index.group_covered.len) return 0;
    return index.group_starts[file + 1] - index.group_starts[file];
}

export fn fileCovered(file: u32) u32 {
    return if (file < index.group_covered.len) index.group_covered[file] else 0;
}

export fn filePath(file: u32) Text {
    text_result.clearRetainingCapacity();
    if (file < index.files.len) {
        index.appendPath(&text_result, index.files[file]) catch @panic("out of memory");
    }
    return .init(text_result.items);
}

/// For servers that know no style.css, such as the one in Zig's build runner.
export fn styleSheet() Text {
    return .init(@embedFile("style.css"));
}

// ------------------------------------------------------------------ sources

/// Replaces all sources by those in the tar in the inbox; returns their number.
export fn unpack() usize {
    std.mem.swap(Bytes, &inbox_bytes, &tar_bytes);
    inbox_bytes.clearAndFree(gpa);
    sources.clearRetainingCapacity();
    _ = source_names.reset(.free_all);

    var tar: TarReader = .{ .bytes = tar_bytes.items };
    while (tar.next()) |entry| {
        const name = source_names.allocator().dupe(u8, entry.name) catch @panic("out of memory");
        sources.put(gpa, withoutDoubleSlashes(name), entry.content) catch @panic("out of memory");
    }
    return sources.count();
}

/// How many files of the index have locations but no source.
export fn missingSources() u32 {
    var missing: u32 = 0;
    for (0..index.files.len) |i| {
        const file: u32 = @intCast(i);
        if (fileTotal(file) != 0 and sourceOf(file) == null) missing += 1;
    }
    return missing;
}

export fn hasSource(file: u32) bool {
    return sourceOf(file) != null;
}

/// A file's source with an empty `<span id="lN">` at each location N. Zig is
/// highlighted; what is not Zig, or holds bytes that Zig does not, is shown as it is.
export fn fileHtml(file: u32) Text {
    text_result.clearRetainingCapacity();
    const source = sourceOf(file) orelse return .init("");
    renderSource(source, file) catch @panic("out of memory");
    return .init(text_result.items);
}

fn sourceOf(file: u32) ?[]const u8 {
    if (file >= index.files.len) return null;
    text_result.clearRetainingCapacity();
    index.appendPath(&text_result, index.files[file]) catch @panic("out of memory");
    defer text_result.clearRetainingCapacity();
    return sources.get(withoutDoubleSlashes(text_result.items));
}

/// Debug info and tar may join the same directory and file differently.
fn withoutDoubleSlashes(path: []u8) []u8 {
    var len: usize = 0;
    for (path) |byte| {
        if (byte == '/' and len != 0 and path[len - 1] == '/') continue;
        path[len] = byte;
        len += 1;
    }
    return path[0..len];
}

fn renderSource(source: []const u8, file: u32) error{OutOfMemory}!void {
    const marks = try findMarks(source, index.ofFile(file));
    defer gpa.free(marks);
    const is_zig = std.mem.endsWith(u8, filePathEnd(file), ".zig");
    if (is_zig and try highlight(source, marks)) return;
    text_result.clearRetainingCapacity();
    var cursor: usize = 0;
    for (marks) |mark| {
        try html_render.appendEscaped(&text_result, source[cursor..mark.file_byte_offset]);
        try appendMark(mark);
        cursor = mark.file_byte_offset;
    }
    try html_render.appendEscaped(&text_result, source[cursor..]);
}

fn filePathEnd(file: u32) []const u8 {
    return index.string(@intFromEnum(index.files[file].basename));
}

fn appendMark(mark: html_render.Annotation) error{OutOfMemory}!void {
    try text_result.writer(gpa).print("<span id=\"l{d}\"></span>", .{mark.dom_id});
}

/// Turns sorted lines and columns into offsets. The source may be newer than the
/// executable: a column beyond its line moves to its last byte, and a line
/// beyond the file to the file's end, so that no location is lost.
fn findMarks(source: []const u8, locations: []const u32) error{OutOfMemory}![]html_render.Annotation {
    const marks = try gpa.alloc(html_render.Annotation, locations.len);
    var line: u32 = 1;
    var start: usize = 0;
    for (marks, locations) |*mark, i| {
        const location = index.locations[i];
        while (line < location.line and start < source.len) : (line += 1) {
            const end = std.mem.indexOfScalarPos(u8, source, start, '\n') orelse source.len - 1;
            start = end + 1;
        }
        const end = std.mem.indexOfScalarPos(u8, source, start, '\n') orelse source.len;
        const last = if (end > start) end - 1 else start;
        const offset = @min(start +| (location.column -| 1), last);
        mark.* = .{ .file_byte_offset = @intCast(offset), .dom_id = i };
    }
    return marks;
}

/// False if the source is not Zig that html_render can draw.
///
/// Walk is given nothing but tokens, since html_render needs no more. Walk's own
/// way in finds out where each identifier is declared, for links to pages of
/// documentation that do not exist here; it has no answer but a trap to source
/// that parses and does not compile, nor has the parser to very deep nesting.
fn highlight(source: []const u8, marks: []const html_render.Annotation) error{OutOfMemory}!bool {
    const text = try gpa.dupeZ(u8, source);
    defer gpa.free(text);
    var tokens: Ast.TokenList = .empty;
    defer tokens.deinit(gpa);
    var tokenizer: std.zig.Tokenizer = .init(text);
    while (true) {
        const token = tokenizer.next();
        if (token.tag == .invalid or token.tag == .invalid_periodasterisks) return false;
        try tokens.append(gpa, .{ .tag = token.tag, .start = @intCast(token.loc.start) });
        if (token.tag == .eof) break;
    }
    var nodes: Ast.NodeList = .empty;
    defer nodes.deinit(gpa);
    try nodes.append(gpa, .{ .tag = .root, .main_token = 0, .data = undefined });
    const ast: Ast = .{
        .source = text,
        .tokens = tokens.slice(),
        .nodes = nodes.slice(),
        .extra_data = &.{},
        .mode = .zig,
        .errors = &.{},
    };
    Walk.files.clearRetainingCapacity();
    try Walk.files.put(gpa, "", .{ .ast = ast });

    // html_render starts at the first token, and most files start with a comment.
    const token_starts = ast.tokens.items(.start);
    try text_result.appendSlice(gpa, "<span class=\"tok-comment\">");
    try html_render.appendEscaped(&text_result, source[0..token_starts[0]]);
    try text_result.appendSlice(gpa, "</span>");
    html_render.fileSourceHtml(@enumFromInt(0), &text_result, 0, .{
        .source_location_annotations = marks,
    }) catch |err| switch (err) {
        error.OutOfMemory => return error.OutOfMemory,
        error.InvalidToken => unreachable, // It would have been found above.
    };

    // It stops before the marks that lie behind the last token.
    const n_tokens: u32 = @intCast(ast.tokens.len);
    const end = if (n_tokens < 2) 0 else token_starts[n_tokens - 2] + ast.tokenSlice(n_tokens - 2).len;
    for (marks) |mark| {
        if (mark.file_byte_offset >= end) try appendMark(mark);
    }
    return true;
}

/// Reads as much of a tar as makes sense and stops quietly where it does not:
/// half of the sources is better than none. std.tar would refuse an archive for
/// one entry of a kind that it does not know.
const TarReader = struct {
    bytes: []const u8,
    position: usize = 0,
    /// From a GNU 'L' entry, for the entry that follows it.
    long_name: ?[]const u8 = null,
    name_buffer: [256]u8 = undefined,

    const Entry = struct { name: []const u8, content: []const u8 };
    const block = 512;

    fn next(tar: *TarReader) ?Entry {
        while (tar.bytes.len - tar.position >= block) {
            const header = tar.bytes[tar.position..][0..block];
            if (header[0] == 0 and tar.long_name == null) return null;
            const size = parseSize(header[124..136]) orelse return null;
            tar.position += block;
            if (size > tar.bytes.len - tar.position) return null;
            const content = tar.bytes[tar.position..][0..size];
            tar.position = @min(tar.bytes.len, std.mem.alignForward(usize, tar.position + size, block));

            const name = tar.long_name orelse tar.shortName(header);
            tar.long_name = null;
            switch (header[156]) {
                'L' => tar.long_name = std.mem.sliceTo(content, 0),
                '0', 0 => return .{ .name = name, .content = content },
                else => {},
            }
        }
        return null;
    }

    fn shortName(tar: *TarReader, header: *const [block]u8) []const u8 {
        const name = std.mem.sliceTo(header[0..100], 0);
        const prefix = std.mem.sliceTo(header[345..500], 0);
        const is_ustar = std.mem.eql(u8, header[257..262], "ustar");
        if (!is_ustar or prefix.len == 0) return name;
        return std.fmt.bufPrint(&tar.name_buffer, "{s}/{s}", .{ prefix, name }) catch unreachable;
    }

    fn parseSize(field: *const [12]u8) ?usize {
        const digits = std.mem.trim(u8, std.mem.sliceTo(field, 0), " ");
        return std.fmt.parseInt(usize, digits, 8) catch null;
    }
};
