"""Many builds of one model over time: where a figure changed, and whether the newest change is for the worse."""
