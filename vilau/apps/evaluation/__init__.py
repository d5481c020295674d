"""The parts of ``vilau eval``."""
