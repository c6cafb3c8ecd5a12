"""VWS, the Virtual Workspace Service: execution environments, leased."""

__version__ = "0.1.0"
