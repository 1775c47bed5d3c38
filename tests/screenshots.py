"""The pictures of the page in ``docs/``, taken while a real fuzzer runs: see ``scripts/screenshots``."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

from tests.support_browser import FLAGS, Page

DOCS = Path(__file__).resolve().parent.parent / "docs"

BUILD_SECONDS = 300.0
"""For tests and wasm to be compiled, and for a finding to come."""

FUZZED_SECONDS = 60.0
"""Long enough for a curve."""

RECIPES = """\
//! Reads recipes: lines such as `flour: 500 g`, and `# Title` above them.

const std = @import("std");

pub const Unit = enum { gram, liter, piece };

pub const Ingredient = struct {
    name: []const u8,
    amount: u32,
    unit: Unit,
};

pub const Recipe = struct {
    title: []const u8 = "",
    ingredients: [max_ingredients]Ingredient = undefined,
    len: usize = 0,

    pub const max_ingredients = 8;
    pub const Error = error{ NoName, NoAmount, BadAmount, UnknownUnit };

    pub fn parse(text: []const u8) Error!Recipe {
        var recipe: Recipe = .{};
        var lines = std.mem.tokenizeScalar(u8, text, '\\n');
        while (lines.next()) |line| {
            if (line[0] == '#') {
                recipe.title = std.mem.trim(u8, line[1..], " ");
            } else {
                recipe.ingredients[recipe.len] = try ingredient(line);
                recipe.len += 1;
            }
        }
        return recipe;
    }

    fn ingredient(line: []const u8) Error!Ingredient {
        const colon = std.mem.indexOfScalar(u8, line, ':') orelse return error.NoName;
        if (colon == 0) return error.NoName;
        var words = std.mem.tokenizeScalar(u8, line[colon + 1 ..], ' ');
        const amount = words.next() orelse return error.NoAmount;
        return .{
            .name = line[0..colon],
            .amount = std.fmt.parseInt(u32, amount, 10) catch return error.BadAmount,
            .unit = if (words.next()) |word| try unit(word) else .piece,
        };
    }

    fn unit(word: []const u8) Error!Unit {
        if (word.len == 0) return .piece;
        return switch (word[0]) {
            'g' => .gram,
            'l' => .liter,
            'x' => .piece,
            'k' => {
                if (word.len == 1 or word[1] != 'g') return error.UnknownUnit;
                @panic("kilograms are not known yet");
            },
            else => error.UnknownUnit,
        };
    }

    pub fn total(recipe: *const Recipe, wanted: Unit) u32 {
        var sum: u32 = 0;
        for (recipe.ingredients[0..recipe.len]) |each| {
            if (each.unit == wanted) sum += each.amount;
        }
        return sum;
    }
};

fn fuzzRecipe(_: void, input: []const u8) anyerror!void {
    const recipe = Recipe.parse(input) catch return;
    std.mem.doNotOptimizeAway(recipe.total(.gram));
}

fn fuzzUnit(_: void, input: []const u8) anyerror!void {
    std.mem.doNotOptimizeAway(Recipe.unit(input) catch return);
}

test "fuzz recipe" {
    try std.testing.fuzz({}, fuzzRecipe, .{ .corpus = &.{"# Bread\\nflour: 500 g\\nwater: 1 l\\n"} });
}

test "fuzz unit" {
    try std.testing.fuzz({}, fuzzUnit, .{});
}
"""
"""What is fuzzed. One unit breaks it within seconds."""


@contextmanager
def fuzzing(folder: Path) -> Iterator[str]:
    """``fuzzserver run``; gives the address of its page."""
    root, port_file = folder / "recipes" / "recipe.zig", folder / "port"
    root.parent.mkdir()
    root.write_text(RECIPES)
    argv = [sys.executable, "-m", "fuzzserver", "run", str(root), "--port-file", str(port_file)]
    process = subprocess.Popen(argv)
    try:
        while not port_file.exists():
            assert process.poll() is None, "fuzzserver did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}/"
    finally:
        process.terminate()
        process.wait()


def take(page: Page, name: str, width: int, height: int, theme: str) -> None:
    """Write ``docs/page-NAME.png``."""
    page.size(width, height)
    page.prefer(theme=theme)
    time.sleep(1)  # For what moves to come to rest.
    path = DOCS / f"page-{name}.png"
    page.driver.save_screenshot(str(path))
    print(path.relative_to(DOCS.parent))


def main() -> None:
    """Take all."""
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, "--hide-scrollbars"):
        options.add_argument(flag)
    with tempfile.TemporaryDirectory() as folder, fuzzing(Path(folder)) as url:
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            page = Page(driver)
            page.open(url)
            page.until_shown("#notice")
            take(page, "building", 1280, 800, "light")
            page.until(lambda: page.is_shown("#next a"), BUILD_SECONDS)
            time.sleep(FUZZED_SECONDS)
            page.until(lambda: page.text("#statFindings") != "0", BUILD_SECONDS)
            take(page, "overview", 1280, 800, "light")
            page.click_text("#nextFunctions a", "recipe.Recipe.unit")
            page.until_shown("#sourceScroll .mark")
            take(page, "source", 1280, 800, "dark")
            take(page, "narrow", 360, 780, "light")
            page.go("#findings")
            page.click("#findingRows a")
            page.until_text("#findingDetail", "Reproduce")
            take(page, "finding", 1280, 800, "light")
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
