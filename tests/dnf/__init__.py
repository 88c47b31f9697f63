"""Packages of the RHEL family from mirrors to hosts, through the real dnf: stand-ins under the real names."""
