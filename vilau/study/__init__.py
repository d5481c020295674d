"""Studies: ordered stages, named variants and one table, planned, run, resumed and reported."""
