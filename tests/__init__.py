"""Tests of fuzzserver. Neighbours are real: the Zig compiler, its fuzzers, its own server, a browser."""
