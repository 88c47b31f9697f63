"""The program in each rank's container: a gang of engines starts together, ends together, and meets again.

It is copied as text into the containers of every gang (rendering/gang.py), where python3 may be 3.10 and has the
standard library alone. docs/multi-node.md says how a gang lives.
"""
