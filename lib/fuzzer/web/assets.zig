//! The page's scripts and style sheets, for servers that only know main.js and main.wasm, such
//! as the one in Zig's build runner.

const builtin = @import("builtin");

/// Zig's server compiles for speed. Ours compiles for size, and serves all of this by itself:
/// then it would only be sent twice.
const is_carried = builtin.mode != small;
/// Zig 0.17 has another name for it.
const small = if (@hasField(@TypeOf(builtin.mode), "ReleaseSmall")) .ReleaseSmall else .small;

pub const Module = struct { name: []const u8, text: []const u8 };

/// All but main.js, each behind those that it imports.
pub const modules: []const Module = if (!is_carried) &.{} else &read(&.{
    "bus.js",
    "report.js",
    "fetching.js",
    "format.js",
    "dom.js",
    "bytes.js",
    "chartdraw.js",
    "wasm.js",
    "chart.js",
    "connection.js",
    "route.js",
    "corpus.js",
    "keys.js",
    "virtual.js",
    "listing.js",
    "tree.js",
    "files.js",
    "printed.js",
    "findings.js",
    "fresh.js",
    "names.js",
    "sourcetext.js",
    "pointcard.js",
    "sourcefile.js",
    "sourcekeys.js",
    "strip.js",
    "source.js",
    "follow.js",
    "targets.js",
    "head.js",
    "logview.js",
    "news.js",
    "next.js",
    "notice.js",
    "numbers.js",
    "plainmap.js",
    "plain.js",
    "views.js",
    "app.js",
});

pub const style_sheet = if (!is_carried) "" else join(&.{ "style.css", "source.css", "lists.css", "findings.css" });

fn read(comptime names: []const []const u8) [names.len]Module {
    var result: [names.len]Module = undefined;
    for (names, &result) |name, *module| module.* = .{ .name = name, .text = @embedFile(name) };
    return result;
}

fn join(comptime names: []const []const u8) []const u8 {
    var text: []const u8 = "";
    for (names) |name| text = text ++ @embedFile(name) ++ "\n";
    return text;
}
