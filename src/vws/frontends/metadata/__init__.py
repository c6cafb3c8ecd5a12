"""What guests call, under /context/v1: plain text for a shell to read (docs/contextualising.md)."""
