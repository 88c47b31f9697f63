"""Rehearsal hosts: containers that behave as bare-metal hosts."""

from onprem_llm.lab.lifecycle import Wanted, attempts, down, exec_root, ssh_argv, status, up

__all__ = ["Wanted", "attempts", "down", "exec_root", "ssh_argv", "status", "up"]
