"""Before a run: what fits, how long it takes, how much to replay."""
