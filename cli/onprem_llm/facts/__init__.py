"""What hosts are, collected where they are: through the probe, or by a script for sites without this tool."""
