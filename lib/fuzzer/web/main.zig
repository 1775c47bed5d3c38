//! The half of the page that reads bytes: it parses the server's messages and sources, and
//! answers the questions that JavaScript asks in order to draw. It knows nothing of the document.
//!
//! Bytes arrive in one place: JavaScript asks `inbox` for room, fills it, and calls `receive` for
//! a message, `unpack` for a tar, `openSource` for a source, or lists something that is filtered
//! by a text. What is worth keeping is kept in the buffer it came in.
//!
//! Nothing from outside is believed before it is measured: a message of the wrong length is
//! refused as a whole, and a number that points nowhere (a file without a directory, a location
//! without a file) is shown as such. A trap here would leave the page dead until it is reloaded.
//!
//! A slice that is handed out stays valid until the next call. An answer that is an index is
//! 0xffffffff if there is none, where nothing else is said.

const builtin = @import("builtin");
const std = @import("std");
const abi = @import("abi.zig");
const assets = @import("assets.zig");
const lists = @import("lists.zig");
const memory = @import("memory.zig");
const Marks = @import("marks.zig");
const Coverage = @import("coverage.zig");
const History = @import("history.zig");
const Index = @import("index.zig");
const Points = @import("points.zig");
const Source = @import("source.zig");
const Speed = @import("speed.zig");
const Tar = @import("tar.zig");
const gpa = memory.gpa;
const Slice = memory.Slice;
const Text = memory.Text;

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

/// What came last, until it is dealt with.
var inbox_bytes: memory.Bytes = .empty;

var index: Index = .empty;
var coverage: Coverage = .empty;
var points: Points = .empty;
var history: History = .{};
var speed: Speed = .{};
var source: Source = .closed;
var tar: Tar = .{};
var file_ranks: lists.Ranks = .{};
var function_ranks: lists.Ranks = .{};

var n_runs: u64 = 0;
var unique_runs: u64 = 0;
var entry_points: std.ArrayListUnmanaged(u32) = .empty;

/// The server's clock in nanoseconds, at the moment `client_base` of ours.
var server_base: i64 = 0;
var client_base: f64 = 0;
/// When the numbers in `n_runs` and `unique_runs` arrived.
var last_update: f64 = 0;
/// Unix seconds when our clock was at 0; null until JavaScript has told.
var unix_base: ?f64 = null;
var new_since: f64 = 0;

/// What the last call that returns a list or a text has written.
var path_result: [Index.max_path]u8 = undefined;
var index_result: std.ArrayListUnmanaged(u32) = .empty;
var number_result: std.ArrayListUnmanaged(f32) = .empty;
var run_result: std.ArrayListUnmanaged(Source.Run) = .empty;
var state_result: std.ArrayListUnmanaged(Marks.State) = .empty;
var overview_result: std.ArrayListUnmanaged(Marks.State) = .empty;

// ---------------------------------------------------------------- messages

export fn inbox(len: usize) [*]u8 {
    // What was in there need not move. A source gets one byte more behind its end.
    if (inbox_bytes.capacity <= len) {
        inbox_bytes.clearAndFree(gpa);
        inbox_bytes.ensureTotalCapacityPrecise(gpa, len +| 1) catch outOfMemory();
    }
    inbox_bytes.items.len = len;
    return inbox_bytes.items.ptr;
}

/// Whoever keeps the inbox's bytes takes them out.
fn takeInbox() memory.Bytes {
    defer inbox_bytes = .empty;
    return inbox_bytes;
}

fn outOfMemory() noreturn {
    @panic("out of memory");
}

/// What a message has changed, so that JavaScript draws that and nothing else.
const Received = enum(u32) {
    malformed = 0,
    unknown = 1,
    time = 2,
    same_index = 3,
    new_index = 4,
    coverage = 5,
    entry_points = 6,
    history = 7,
    points = 8,
};

export fn receive() Received {
    const bytes = inbox_bytes.items;
    if (bytes.len == 0) return .malformed;
    const received = switch (@as(abi.ToClientTag, @enumFromInt(bytes[0]))) {
        .current_time => receiveTime(bytes),
        .source_index => receiveIndex(bytes),
        .coverage_update => receiveCoverage(bytes),
        .entry_points => receiveEntryPoints(bytes),
        .coverage_delta => receiveDelta(bytes),
        .history => receiveHistory(bytes),
        .points => receivePoints(),
        _ => return .unknown,
    };
    return received catch |err| switch (err) {
        error.Malformed => .malformed,
        error.OutOfMemory => outOfMemory(),
    };
}

fn receiveTime(bytes: []const u8) memory.ParseError!Received {
    if (bytes.len != 1 + @sizeOf(i64)) return error.Malformed;
    server_base = std.mem.readInt(i64, bytes[1..][0..8], .little);
    client_base = js.clock();
    return .time;
}

fn receiveIndex(bytes: []align(8) const u8) memory.ParseError!Received {
    // Another start of the same executable is no reason to draw everything again.
    if (index.isSame(bytes)) {
        index.restart(bytes);
        return .same_index;
    }
    var next_index = try Index.parse(inbox_bytes);
    errdefer next_index.freeTables();
    const next_coverage = try Coverage.init(&next_index);
    // The new index owns the message now.
    _ = takeInbox();
    source.close();
    points.deinit();
    coverage.deinit();
    index.deinit();
    index = next_index;
    coverage = next_coverage;
    history.clear();
    file_ranks.clear();
    function_ranks.clear();
    entry_points.clearRetainingCapacity();
    speed = .{};
    n_runs = 0;
    unique_runs = 0;
    return .new_index;
}

fn receiveCoverage(bytes: []align(8) const u8) memory.ParseError!Received {
    const Header = abi.CoverageUpdateHeader;
    if (index.bytes.items.len == 0) return error.Malformed;
    var reader = try memory.Reader.init(bytes, @sizeOf(Header));
    const header: *const Header = @ptrCast(bytes[0..@sizeOf(Header)]);
    const words = try reader.takeLast(u64, Coverage.wordsFor(coverage.len));
    const now = if (unix_base) |base| base + js.clock() / std.time.ms_per_s else Coverage.unknown_time;
    try coverage.replace(words, now, &points);
    takeRuns(header.n_runs, header.unique_runs);
    return .coverage;
}

const DeltaHeader = extern struct {
    tag: u32,
    new_len: u32,
    n_runs: u64,
    unique_runs: u64,
    time: f64,
};

fn receiveDelta(bytes: []align(8) const u8) memory.ParseError!Received {
    var reader = try memory.Reader.init(bytes, @sizeOf(DeltaHeader));
    const header: *const DeltaHeader = @ptrCast(bytes[0..@sizeOf(DeltaHeader)]);
    const items = try reader.takeLast(u32, header.new_len);
    if (!coverage.is_known or !std.math.isFinite(header.time)) return error.Malformed;
    for (items, 0..) |item, i| {
        if (item >= coverage.len or i != 0 and item <= items[i - 1]) return error.Malformed;
    }
    try coverage.extend(items, @max(header.time, Coverage.unknown_time));
    // One more worker is counted, with the runs that it made before.
    if (header.time <= Coverage.unknown_time) speed = .{};
    takeRuns(header.n_runs, header.unique_runs);
    return .coverage;
}

fn takeRuns(total: u64, unique: u64) void {
    n_runs = total;
    unique_runs = unique;
    last_update = js.clock();
    speed.add(last_update, total);
}

fn receiveEntryPoints(bytes: []align(8) const u8) memory.ParseError!Received {
    const Header = abi.EntryPointHeader;
    var reader = try memory.Reader.init(bytes, @sizeOf(Header));
    const header: *const Header = @ptrCast(bytes[0..@sizeOf(Header)]);
    const items = try reader.takeLast(u32, header.locs_len);
    entry_points.clearRetainingCapacity();
    try entry_points.appendSlice(gpa, items);
    return .entry_points;
}

fn receiveHistory(bytes: []align(8) const u8) memory.ParseError!Received {
    try history.receive(bytes);
    return .history;
}

fn receivePoints() memory.ParseError!Received {
    const next = try Points.parse(inbox_bytes, &index);
    _ = takeInbox();
    points.deinit();
    points = next;
    function_ranks.clear();
    try coverage.takePoints(&points);
    return .points;
}

// ------------------------------------------------------------------ numbers

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

/// Runs a second over the last 10 seconds; NaN if unknown.
export fn recentSpeed() f64 {
    return speed.recent(js.clock());
}

/// Runs a second since the fuzzer started, which found `start_runs` in its coverage file.
export fn averageSpeed(start_runs: f64) f64 {
    const seconds = fuzzedSeconds();
    if (!(seconds > 0)) return std.math.nan(f64);
    return @max(0, @as(f64, @floatFromInt(n_runs)) - start_runs) / seconds;
}

/// What time it is, for servers that do not tell when something was covered.
export fn setClock(unix_seconds: f64) void {
    unix_base = if (std.math.isFinite(unix_seconds)) unix_seconds - js.clock() / std.time.ms_per_s else null;
}

export fn entryPoints() Slice(u32) {
    return .init(entry_points.items);
}

// ---------------------------------------------------------------- locations

export fn locationCount() usize {
    return index.locations.len;
}

export fn coveredCount() u32 {
    return coverage.covered;
}

/// A location that does not exist, or has no file, gives `fileCount()`.
export fn locationFile(i: u32) usize {
    return if (i < index.file_of.len) index.file_of[i] else index.files.len;
}

export fn locationLine(i: u32) u32 {
    return if (i < index.locations.len) index.locations[i].line else 0;
}

export fn locationColumn(i: u32) u32 {
    return if (i < index.locations.len) index.locations[i].column else 0;
}

export fn locationCovered(i: u32) bool {
    return coverage.has(i);
}

/// The locations that the last update has covered; none after the first update of an index.
export fn newlyCovered() Slice(u32) {
    return .init(coverage.newly.items);
}

/// The latest covered locations, newest first.
export fn newest(limit: u32) Slice(u32) {
    const items = coverage.newest.items;
    return .init(items[0..@min(limit, items.len)]);
}

/// Unix seconds when a location was first covered; 0 if it is not, 1 if nobody knows.
export fn pointTime(i: u32) f64 {
    return coverage.time(i);
}

/// 0 if unknown.
export fn pointAddress(i: u32) u64 {
    return if (i < points.addresses.len) points.addresses[i] else 0;
}

/// `functionCount()` if unknown.
export fn pointFunction(i: u32) usize {
    if (i >= points.function_of.len) return points.function_names.len;
    return @min(points.function_of[i], points.function_names.len);
}

// -------------------------------------------------------------------- files

export fn fileCount() usize {
    return index.files.len;
}

/// In this and the next two, `fileCount()` stands for the locations without a file.
export fn fileLocations(file: u32) Slice(u32) {
    return .init(index.ofFile(file));
}

export fn fileTotal(file: u32) u32 {
    return coverage.files.total(file);
}

export fn fileCovered(file: u32) u32 {
    return coverage.files.coveredOf(file);
}

export fn filePath(file: u32) Text {
    return .init(index.path(file, &path_result));
}

export fn fileIsStd(file: u32) bool {
    return file < index.is_std.len and index.is_std[file];
}

/// How many files have locations.
export fn filesTotal() u32 {
    var n: u32 = 0;
    for (0..index.files.len) |i| n += @intFromBool(fileTotal(@intCast(i)) != 0);
    return n;
}

/// How many files have a covered location.
export fn filesCovered() u32 {
    return coverage.files.reached - @intFromBool(fileCovered(@intCast(index.files.len)) != 0);
}

/// Indexes of files with locations, ordered by a `lists.Key`, that contain the text in the inbox.
export fn listFiles(key: lists.Key, descending: bool, flags: lists.Flags) Slice(u32) {
    const rows: lists.Files = .{ .index = &index, .coverage = &coverage };
    return list(&file_ranks, rows, key, descending, flags);
}

fn list(ranks: *lists.Ranks, rows: anytype, key: lists.Key, descending: bool, flags: lists.Flags) Slice(u32) {
    const order: lists.Order = .{ .key = key, .descending = descending };
    lists.list(&index_result, ranks, rows, order, flags, inbox_bytes.items) catch outOfMemory();
    return .init(index_result.items);
}

// ---------------------------------------------------------------- functions

export fn functionCount() usize {
    return points.function_names.len;
}

export fn functionName(function: u32) Text {
    return .init(if (function < points.function_names.len) points.function_names[function] else "");
}

export fn functionTotal(function: u32) u32 {
    return coverage.functions.total(function);
}

export fn functionCovered(function: u32) u32 {
    return coverage.functions.coveredOf(function);
}

/// `fileCount()` if it has none.
export fn functionFile(function: u32) usize {
    return if (function < points.function_files.len) points.function_files[function] else index.files.len;
}

/// Its first location in its file.
export fn functionPoint(function: u32) u32 {
    return if (function < points.function_points.len) points.function_points[function] else memory.none;
}

/// How many functions have a covered location.
export fn functionsCovered() u32 {
    return coverage.functions.reached;
}

/// As `listFiles`.
export fn listFunctions(key: lists.Key, descending: bool, flags: lists.Flags) Slice(u32) {
    const rows: lists.Functions = .{ .index = &index, .coverage = &coverage, .points = &points };
    return list(&function_ranks, rows, key, descending, flags);
}

// -------------------------------------------------------------------- lines

/// Before this the next two give 0. It takes its time, after which updates count lines too.
export fn prepareLines() void {
    coverage.prepareLines(&index) catch outOfMemory();
}

/// How many lines have locations.
export fn linesTotal() usize {
    return coverage.lines.totals.len;
}

/// How many lines have a covered location.
export fn linesCovered() u32 {
    return coverage.lines.reached;
}

// ------------------------------------------------------------------ sources

/// Replaces all sources by those in the tar in the inbox; returns their number.
export fn unpack() usize {
    tar.replace(takeInbox()) catch outOfMemory();
    return tar.contents.count();
}

fn tarSource(file: u32) ?[]const u8 {
    if (file >= index.files.len) return null;
    return tar.get(index.plainPath(file, &path_result));
}

/// Opens a file with the source in the inbox, in place of the one before; returns how many
/// lines it has.
export fn openSource(file: u32) u32 {
    source.close();
    source = Source.open(&index, file, takeInbox()) catch outOfMemory();
    return source.lineCount();
}

/// The same with the source in the tar. If it has none, nothing is open.
export fn openTarSource(file: u32) u32 {
    source.close();
    const content = tarSource(file) orelse return memory.none;
    var bytes: memory.Bytes = .empty;
    bytes.ensureTotalCapacityPrecise(gpa, content.len + 1) catch outOfMemory();
    bytes.appendSliceAssumeCapacity(content);
    source = Source.open(&index, file, bytes) catch outOfMemory();
    return source.lineCount();
}

/// In how many places the open source is no Zig that `zigVersion` knows. They are plain up to the end of their
/// lines.
export fn refusedCount() u32 {
    return source.refused;
}

/// The release of Zig that this was compiled by, and whose tokens it knows.
export fn zigVersion() Text {
    return .init(builtin.zig_version_string);
}

export fn closeSource() void {
    source.close();
}

/// What to draw for a line, which counts from 0 here and below.
export fn lineRuns(line: u32) Slice(Source.Run) {
    source.runs(&run_result, line) catch outOfMemory();
    return .init(run_result.items);
}

/// A `Marks.State` for each of at most `count` lines.
export fn lineStates(first: u32, count: u32) Slice(Marks.State) {
    const n = @min(count, source.lineCount() -| first);
    state_result.resize(gpa, n) catch outOfMemory();
    source.marks.states(&coverage, first, state_result.items);
    return .init(state_result.items);
}

/// The worst state in each of so many equal parts of the open source.
export fn overview(rows: u32) Slice(Marks.State) {
    const n_lines = source.lineCount();
    if (n_lines == 0) return .init(&.{});
    _ = lineStates(0, n_lines);
    overview_result.resize(gpa, @min(rows, max_rows)) catch outOfMemory();
    Marks.overview(state_result.items, overview_result.items);
    return .init(overview_result.items);
}

/// No screen has more.
const max_rows = 1 << 16;

/// The line of a location's mark; none if the location is not in the open source.
export fn lineOfPoint(i: u32) u32 {
    return source.marks.lineOf(&index, i);
}

/// The next location of a `Marks.Kind` behind `line`, or before it if `direction` is negative.
export fn seek(line: u32, direction: i32, kind: Marks.Kind) u32 {
    return source.marks.seek(&coverage, line, direction < 0, kind, new_since);
}

/// From when on a covered location counts as new.
export fn setNewSince(unix_seconds: f64) void {
    new_since = unix_seconds;
}

// ------------------------------------------------------------------ history

export fn historyLen() usize {
    return history.samples.items.len;
}

/// Unix seconds of the first and of the last sample; NaN if there is none.
export fn historyFirst() f64 {
    return history.first();
}

export fn historyLast() f64 {
    return history.last();
}

/// A value for each pixel column of a chart from `t0` to `t1` in Unix seconds; NaN where
/// nothing is known.
export fn historyColumns(t0: f64, t1: f64, columns: u32, what: History.What) Slice(f32) {
    history.columns(&number_result, t0, t1, columns, what) catch outOfMemory();
    return .init(number_result.items);
}

// ----------------------------------------------------------------- the page

export fn styleSheet() Text {
    return .init(assets.style_sheet);
}

export fn moduleCount() usize {
    return assets.modules.len;
}

export fn moduleName(i: u32) Text {
    return .init(if (i < assets.modules.len) assets.modules[i].name else "");
}

export fn moduleText(i: u32) Text {
    return .init(if (i < assets.modules.len) assets.modules[i].text else "");
}
