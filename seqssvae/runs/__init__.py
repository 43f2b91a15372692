"""Run directories: their files, how they are written and read, and how a run is opened."""
