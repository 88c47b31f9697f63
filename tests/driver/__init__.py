"""The role nvidia_driver on rehearsal hosts: a real driver on Debian, stand-in packages under the real names elsewhere.

`make test-driver`. A host has no GPU: its PCI bus is a folder that is mounted over /sys/bus/pci/devices. A stand-in
package brings a kernel module that only says its version; whether a driver loads cannot be shown here. The role
nvidia_container_toolkit runs beside it, with pretended GPUs and the stand-in nvidia-ctk of cli/onprem_llm/lab/gpu.
"""
