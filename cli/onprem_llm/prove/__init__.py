"""The rehearsal before the door: a bundle is loaded, deployed and used on hosts that have no way out."""
