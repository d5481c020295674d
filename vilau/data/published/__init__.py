"""Published benchmarks as their authors ship them, read from a folder on disk; nothing is downloaded."""
