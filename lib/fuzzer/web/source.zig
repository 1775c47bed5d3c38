//! The one source file that is open: its lines, cut into runs of one look.

const std = @import("std");
const memory = @import("memory.zig");
const zig_tokens = @import("tokens.zig");
const Index = @import("index.zig");
const Marks = @import("marks.zig");
const gpa = memory.gpa;

const Source = @This();

/// Its index in the files, `memory.none` if no file is open.
file: u32,
/// With a 0 behind its end.
text: memory.Bytes,
/// There is at least one line, which may be empty.
line_starts: std.ArrayListUnmanaged(u32),
/// Without those that are plain.
tokens: std.ArrayListUnmanaged(zig_tokens.Token),
/// In how many places it is no Zig that we know.
refused: u32,
marks: Marks,

pub const closed: Source = .{
    .file = memory.none,
    .text = .empty,
    .line_starts = .empty,
    .tokens = .empty,
    .refused = 0,
    .marks = .empty,
};

pub const Run = extern struct {
    start: u32,
    len: u32,
    class: zig_tokens.Class,
    /// See `Token.declared`; for a mark the index of its location.
    point: u32,
};

const max_line_bytes = 20_000;
const max_line_runs = 4_000;

/// Takes ownership of `bytes`. A file that is not in the index is one without locations.
pub fn open(index: *const Index, file: u32, bytes: memory.Bytes) error{OutOfMemory}!Source {
    var source: Source = .closed;
    errdefer source.close();
    source.file = file;
    source.text = bytes;
    try source.text.append(gpa, 0);
    try source.findLines();
    var buffer: [Index.max_path]u8 = undefined;
    if (std.mem.endsWith(u8, index.path(file, &buffer), ".zig")) {
        source.refused = try zig_tokens.find(&source.tokens, source.content(), source.line_starts.items);
    }
    const points = if (file < index.files.len) index.ofFile(file) else &.{};
    source.marks = try .init(&source, index, points);
    return source;
}

pub fn close(source: *Source) void {
    source.text.deinit(gpa);
    source.line_starts.deinit(gpa);
    source.tokens.deinit(gpa);
    source.marks.deinit();
    source.* = .closed;
}

fn content(source: *const Source) [:0]const u8 {
    const items = source.text.items;
    return if (items.len == 0) "" else items[0 .. items.len - 1 :0];
}

fn findLines(source: *Source) error{OutOfMemory}!void {
    const text = source.content();
    try source.line_starts.append(gpa, 0);
    for (text, 0..) |byte, i| {
        if (byte == '\n' and i + 1 < text.len) try source.line_starts.append(gpa, @intCast(i + 1));
    }
}

pub fn lineCount(source: *const Source) u32 {
    return @intCast(source.line_starts.items.len);
}

pub const Line = struct { start: u32, end: u32 };

/// Without its end of line.
pub fn lineAt(source: *const Source, line: u32) Line {
    const text = source.content();
    const starts = source.line_starts.items;
    const start = starts[line];
    var end: u32 = if (line + 1 < starts.len) starts[line + 1] else @intCast(text.len);
    if (end > start and text[end - 1] == '\n') end -= 1;
    if (end > start and text[end - 1] == '\r') end -= 1;
    return .{ .start = start, .end = end };
}

/// The start of the character that the byte at `offset` is part of, where the text is UTF-8.
pub fn characterStart(source: *const Source, line_start: u32, offset: u32) u32 {
    const text = source.content();
    if (offset >= text.len) return offset;
    var start = offset;
    while (start > line_start and offset - start < 3 and text[start] & 0xc0 == 0x80) start -= 1;
    return start;
}

pub fn runs(source: *const Source, out: *std.ArrayListUnmanaged(Run), line: u32) error{OutOfMemory}!void {
    out.clearRetainingCapacity();
    if (line >= source.lineCount()) return;
    const text = source.content();
    const whole = source.lineAt(line);
    var end = whole.end;
    if (end - whole.start > max_line_bytes) {
        end = source.characterStart(whole.start, whole.start + max_line_bytes);
    }
    const all = source.tokens.items;
    var token = std.sort.lowerBound(zig_tokens.Token, all, whole.start, startOrder);
    var marks = source.marks.onLine(line);
    var position = whole.start;
    while (out.items.len < max_line_runs) {
        const start = @intFromPtr(text.ptr) + position;
        // Those behind the cut are at its end, so that no location is lost.
        if (marks.next(if (position < end) position else memory.none)) |point| {
            try out.append(gpa, .{ .start = start, .len = 0, .class = .mark, .point = point });
            continue;
        }
        if (position >= end) break;
        while (token < all.len and all[token].end <= position) token += 1;
        var run: Run = .{ .start = start, .len = 0, .class = .plain, .point = 0 };
        var stop = end;
        if (token < all.len and all[token].start <= position) {
            run.class = all[token].class;
            run.point = all[token].declared;
            stop = @min(stop, all[token].end);
        } else if (token < all.len) {
            stop = @min(stop, all[token].start);
        }
        if (marks.nextOffset()) |offset| stop = @min(stop, offset);
        run.len = stop - position;
        try out.append(gpa, run);
        position = stop;
    }
}

fn startOrder(start: u32, token: zig_tokens.Token) std.math.Order {
    return std.math.order(start, token.start);
}
