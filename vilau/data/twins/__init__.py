"""The drawn world's twins of published benchmarks: questions, prompts, and who guesses."""
