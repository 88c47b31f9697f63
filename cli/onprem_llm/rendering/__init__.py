"""Pure: one builder a file, from placed deployments to Compose projects."""
