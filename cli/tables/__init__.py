"""What `stat` and `edges` write: aligned columns for people, JSON for programs."""
