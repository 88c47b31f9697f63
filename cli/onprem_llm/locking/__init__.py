"""From model.yaml and facts to a lock: what each part is, and how its bytes are had."""
