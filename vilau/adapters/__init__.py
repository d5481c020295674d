"""Models of this kit as other projects' evaluators call them: lmms-eval and lm-evaluation-harness."""
