"""Stand-ins for GPUs; see README.md in this folder."""
