"""A deployment in one folder: written from a lock, signed, verified, loaded where there is no way out."""
