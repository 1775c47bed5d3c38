//! What is drawn in a colour of its own in a Zig source, and where its names are declared.
//!
//! Only the tokenizer of std is used: unlike a parser it has an answer to any bytes. What it
//! refuses is left plain up to the end of the line, where it starts again.

const std = @import("std");
const memory = @import("memory.zig");
const Tokenizer = std.zig.Tokenizer;
const gpa = memory.gpa;

pub const Token = struct {
    start: u32,
    end: u32,
    class: Class,
    /// For identifiers: one more than the line (from 0) where the name is declared; or 0.
    declared: u32 = 0,
};

/// The numbers are those that JavaScript reads.
pub const Class = enum(u32) {
    plain = 0,
    keyword = 1,
    string = 2,
    number = 3,
    comment = 4,
    builtin = 5,
    function = 6,
    type = 7,
    constant = 8,
    character = 9,
    mark = 15,
};

const List = std.ArrayListUnmanaged(Token);
const Names = std.StringHashMapUnmanaged(u32);

/// Appends the tokens that are not plain, by their starts. None spans lines. Returns in how many places it met
/// something that is none of Zig's, as far as this release of Zig knows.
pub fn find(out: *List, text: [:0]const u8, line_starts: []const u32) error{OutOfMemory}!u32 {
    var names: Names = .empty;
    defer names.deinit(gpa);
    var tokenizer: Tokenizer = .init(text);
    // The last two tokens.
    var before: std.zig.Token.Tag = .semicolon;
    var before_that: std.zig.Token.Tag = .semicolon;
    var line: u32 = 0;
    var position: usize = 0;
    var refused: u32 = 0;
    while (true) {
        const token = tokenizer.next();
        try appendComments(out, text, position, token.loc.start);
        if (token.tag == .eof) break;
        if (token.tag == .invalid) refused += 1;
        position = token.loc.end;
        // An identifier is a function's name if it is called, which the token behind it tells.
        if (token.tag == .l_paren and before == .identifier) setCalled(out.items);
        defer {
            before_that = before;
            before = token.tag;
        }

        const name = text[token.loc.start..token.loc.end];
        const item: Token = .{
            .start = @intCast(token.loc.start),
            .end = @intCast(token.loc.end),
            .class = classOf(token.tag, before, name) orelse continue,
        };
        if (token.tag == .identifier and isDeclared(before_that, before)) {
            while (line + 1 < line_starts.len and line_starts[line + 1] <= item.start) line += 1;
            const entry = try names.getOrPut(gpa, name);
            if (!entry.found_existing) entry.value_ptr.* = line + 1;
        }
        try out.append(gpa, item);
    }
    link(out, text, &names, line_starts);
    return refused;
}

/// Whether a name behind these two tokens is declared there. A `const` may belong to a pointer's type, too.
fn isDeclared(before_that: std.zig.Token.Tag, before: std.zig.Token.Tag) bool {
    return switch (before) {
        .keyword_fn => true,
        .keyword_const, .keyword_var => switch (before_that) {
            .semicolon, .comma, .l_brace, .r_brace, .doc_comment, .container_doc_comment => true,
            .keyword_pub, .keyword_export, .keyword_extern, .keyword_threadlocal, .keyword_comptime => true,
            .string_literal => true, // extern "c" var
            else => false,
        },
        else => false,
    };
}

/// Null for tokens that are plain and can be nothing else.
fn classOf(tag: std.zig.Token.Tag, before: std.zig.Token.Tag, name: []const u8) ?Class {
    return switch (tag) {
        .identifier => classOfName(before, name),
        .string_literal, .multiline_string_literal_line => .string,
        .char_literal => .character,
        .number_literal => .number,
        .builtin => .builtin,
        .doc_comment, .container_doc_comment => .comment,
        inline else => |other| if (comptime isKeyword(other)) .keyword else null,
    };
}

fn isKeyword(comptime tag: std.zig.Token.Tag) bool {
    return std.mem.startsWith(u8, @tagName(tag), "keyword_");
}

fn classOfName(before: std.zig.Token.Tag, name: []const u8) Class {
    if (before == .keyword_fn) return .function;
    // Types have names in upper case, but for the primitive ones.
    if (std.ascii.isUpper(name[0])) return .type;
    if (before == .period or !std.zig.primitives.isPrimitive(name)) return .plain;
    const constants: std.StaticStringMap(void) = .initComptime(.{
        .{"true"}, .{"false"}, .{"null"}, .{"undefined"},
    });
    return if (constants.has(name)) .constant else .type;
}

fn setCalled(items: []Token) void {
    const last = &items[items.len - 1];
    if (last.class == .plain) last.class = .function;
}

/// Between two tokens there is nothing but space and comments.
fn appendComments(out: *List, text: []const u8, from: usize, to: usize) error{OutOfMemory}!void {
    var position = from;
    while (std.mem.indexOfScalarPos(u8, text[0..to], position, '/')) |start| {
        const end = std.mem.indexOfScalarPos(u8, text[0..to], start, '\n') orelse to;
        try out.append(gpa, .{ .start = @intCast(start), .end = @intCast(end), .class = .comment });
        position = end;
    }
}

/// Tells each identifier where its name is declared first, and drops what stays plain.
fn link(out: *List, text: []const u8, names: *const Names, line_starts: []const u32) void {
    var len: usize = 0;
    for (out.items) |item| {
        var linked = item;
        switch (item.class) {
            .plain, .function, .type => {
                const declared = names.get(text[item.start..item.end]) orelse 0;
                // The declaration itself leads nowhere.
                const is_there = declared != 0 and isOnLine(item, declared - 1, line_starts);
                linked.declared = if (is_there) 0 else declared;
            },
            else => {},
        }
        if (linked.class == .plain and linked.declared == 0) continue;
        out.items[len] = linked;
        len += 1;
    }
    out.shrinkRetainingCapacity(len);
}

fn isOnLine(item: Token, line: u32, line_starts: []const u32) bool {
    if (item.start < line_starts[line]) return false;
    return line + 1 >= line_starts.len or item.start < line_starts[line + 1];
}
