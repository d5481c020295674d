"""``vilau data prepare``: any source into shards, by worker processes, resumable."""
