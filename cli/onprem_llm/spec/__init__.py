"""What people write: model.yaml, the site's settings, a folder of weights. Errors carry the path of what is wrong."""
