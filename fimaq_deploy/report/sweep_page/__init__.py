"""Many builds: records, leaderboard, Pareto front and page."""
