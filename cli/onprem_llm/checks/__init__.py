"""What `onprem-llm check` knows of hosts: reports, what changed between two, what is tried inside an image. Pure."""
