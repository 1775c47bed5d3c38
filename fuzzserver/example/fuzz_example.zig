//! Two small programs and their fuzz tests, to see what fuzzserver shows.
//!
//! The first evaluates sums and products such as `2*(3+4)-1`. The second reads key=value lines. Watch
//! the marks: the fuzzer finds the easy branches within a second, and needs longer for the others.

const std = @import("std");

/// Evaluates an expression of integers, `+`, `-`, `*`, `/` and parentheses.
const Calculator = struct {
    input: []const u8,
    position: usize = 0,
    depth: u8 = 0,

    const Error = error{ UnexpectedEnd, UnexpectedByte, Overflow, DivisionByZero, TooDeep };

    fn evaluate(input: []const u8) Error!i64 {
        var calculator: Calculator = .{ .input = input };
        const value = try calculator.sum();
        if (calculator.position != input.len) return error.UnexpectedByte;
        return value;
    }

    fn peek(calculator: *const Calculator) ?u8 {
        if (calculator.position == calculator.input.len) return null;
        return calculator.input[calculator.position];
    }

    fn sum(calculator: *Calculator) Error!i64 {
        var total = try calculator.product();
        while (calculator.peek()) |byte| {
            switch (byte) {
                '+' => {
                    calculator.position += 1;
                    total = try std.math.add(i64, total, try calculator.product());
                },
                '-' => {
                    calculator.position += 1;
                    total = try std.math.sub(i64, total, try calculator.product());
                },
                else => break,
            }
        }
        return total;
    }

    fn product(calculator: *Calculator) Error!i64 {
        var total = try calculator.operand();
        while (calculator.peek()) |byte| {
            switch (byte) {
                '*' => {
                    calculator.position += 1;
                    total = try std.math.mul(i64, total, try calculator.operand());
                },
                '/' => {
                    calculator.position += 1;
                    total = try std.math.divTrunc(i64, total, try calculator.operand());
                },
                else => break,
            }
        }
        return total;
    }

    fn operand(calculator: *Calculator) Error!i64 {
        const first = calculator.peek() orelse return error.UnexpectedEnd;
        if (first == '(') {
            if (calculator.depth == 20) return error.TooDeep;
            calculator.depth += 1;
            defer calculator.depth -= 1;
            calculator.position += 1;
            const value = try calculator.sum();
            if (calculator.peek() != ')') return error.UnexpectedByte;
            calculator.position += 1;
            return value;
        }
        const start = calculator.position;
        while (calculator.peek()) |byte| {
            if (!std.ascii.isDigit(byte)) break;
            calculator.position += 1;
        }
        if (calculator.position == start) return error.UnexpectedByte;
        return std.fmt.parseInt(i64, calculator.input[start..calculator.position], 10) catch error.Overflow;
    }
};

/// Settings, one `key=value` on each line; `#` begins a comment.
const Settings = struct {
    width: u16 = 80,
    color: enum { auto, always, never } = .auto,
    verbose: bool = false,

    const Error = error{ MissingEquals, UnknownKey, BadValue };

    fn parse(text: []const u8) Error!Settings {
        var settings: Settings = .{};
        var lines = std.mem.tokenizeScalar(u8, text, '\n');
        while (lines.next()) |raw_line| {
            const line = std.mem.trim(u8, raw_line, " \t\r");
            if (line.len == 0 or line[0] == '#') continue;
            const equals = std.mem.indexOfScalar(u8, line, '=') orelse return error.MissingEquals;
            try settings.set(line[0..equals], line[equals + 1 ..]);
        }
        return settings;
    }

    fn set(settings: *Settings, key: []const u8, value: []const u8) Error!void {
        if (std.mem.eql(u8, key, "width")) {
            settings.width = std.fmt.parseInt(u16, value, 10) catch return error.BadValue;
            if (settings.width == 0) return error.BadValue;
        } else if (std.mem.eql(u8, key, "color")) {
            settings.color = std.meta.stringToEnum(@TypeOf(settings.color), value) orelse return error.BadValue;
        } else if (key.len == 1 and key[0] == 'v') {
            settings.verbose = true;
        } else return error.UnknownKey;
    }
};

/// What the fuzzer gives a test: the bytes themselves, or since Zig 0.16 a `Smith` that makes values of them.
const Input = if (@hasDecl(std.testing, "Smith")) *std.testing.Smith else []const u8;

fn bytesOf(input: Input, buffer: []u8) []const u8 {
    return if (Input == []const u8) input else buffer[0..input.slice(buffer)];
}

fn fuzzCalculator(_: void, input: Input) anyerror!void {
    var buffer: [256]u8 = undefined;
    const value = Calculator.evaluate(bytesOf(input, &buffer)) catch return;
    std.mem.doNotOptimizeAway(value);
}

fn fuzzSettings(_: void, input: Input) anyerror!void {
    var buffer: [256]u8 = undefined;
    const settings = Settings.parse(bytesOf(input, &buffer)) catch return;
    try std.testing.expect(settings.width > 0);
}

test "fuzz calculator" {
    try std.testing.fuzz({}, fuzzCalculator, .{});
}

test "fuzz settings" {
    try std.testing.fuzz({}, fuzzSettings, .{});
}

test "calculator" {
    try std.testing.expectEqual(13, try Calculator.evaluate("2*(3+4)-1"));
    try std.testing.expectEqual(-4, try Calculator.evaluate("8/2-8"));
    try std.testing.expectError(error.DivisionByZero, Calculator.evaluate("1/0"));
    try std.testing.expectError(error.UnexpectedEnd, Calculator.evaluate("1+"));
}

test "settings" {
    const settings = try Settings.parse("# comment\nwidth=120\ncolor=never\n");
    try std.testing.expectEqual(120, settings.width);
    try std.testing.expectEqual(.never, settings.color);
    try std.testing.expectError(error.UnknownKey, Settings.parse("height=1"));
}
